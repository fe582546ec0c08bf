"""Check the promises of a memory on every family of decoders."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from backbone import MemoryModel, MemoryState, load_adapter, save_adapter

FAMILIES = [
    "qwen3", "qwen2", "qwen3_moe", "llama", "mistral", "smollm3", "gemma3_text", "granite", "olmo2", "gpt_oss", "phi3",
]  # fmt: skip
WITHOUT_SDPA = {"gpt_oss"}  # its attention has sinks, which SDPA cannot express
MATRIX = [(f, a) for f in FAMILIES for a in ("eager", "sdpa") if not (a == "sdpa" and f in WITHOUT_SDPA)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LENGTH = 21

Make = Callable[..., MemoryModel]


def _ids(rows: int = 1, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randint(3, 64, (rows, length), generator=torch.Generator().manual_seed(seed))


def _in_pieces(model: MemoryModel, ids: Tensor, sizes: list[int]) -> tuple[Tensor, MemoryState]:
    logits, cache, memory = [], None, None
    for piece in ids.split(sizes, 1):
        out = model(piece, past_key_values=cache, memory=memory)
        logits.append(out.logits)
        cache, memory = out.past_key_values, out.memory
    assert memory is not None
    return torch.cat(logits, 1), memory


def _same_memory(found: MemoryState, expected: MemoryState) -> None:
    for name, tensor in expected.layers.items():
        torch.testing.assert_close(found.layers[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("family", "attention"), MATRIX)
@torch.no_grad()
def test_an_empty_memory_is_the_frozen_model(
    make_frozen: Callable[..., PreTrainedModel], family_model: Make, family: str, attention: str, dtype: torch.dtype
) -> None:
    """With an empty memory that nothing writes, logits are those of the decoder without one, bit for bit."""
    ids = _ids()
    expected = make_frozen(family, attention, dtype)(input_ids=ids).logits
    found = family_model(family, attention, dtype)(ids, write_mask=torch.zeros_like(ids, dtype=torch.bool)).logits
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_state_is_float32_on_half_precision_decoders(family_model: Make, family: str, dtype: torch.dtype) -> None:
    """A decoder in bf16 or fp16 keeps its dtype, its memory is float32, finite, written, and read."""
    ids = _ids()
    model = family_model(family, "eager", dtype)
    out = model(ids)
    silent = model(ids, write_mask=torch.zeros_like(ids, dtype=torch.bool))
    assert out.logits.dtype == dtype
    assert all(s.dtype == torch.float32 and s.isfinite().all() and s.any() for s in out.memory.layers.values())
    assert not torch.equal(out.logits, silent.logits)


@pytest.mark.parametrize(("family", "attention"), MATRIX)
@torch.no_grad()
def test_pieces_and_decoding_equal_one_pass(family_model: Make, family: str, attention: str) -> None:
    """Prefill in pieces, then token by token from the cache, gives the logits and the memory of one pass."""
    ids = _ids()
    model = family_model(family, attention)
    whole = model(ids)
    logits, memory = _in_pieces(model, ids, [5, 9, 3, *[1] * (LENGTH - 17)])
    torch.testing.assert_close(logits, whole.logits, atol=2e-4, rtol=1e-3)
    _same_memory(memory, whole.memory)


@pytest.mark.parametrize(("family", "attention"), MATRIX)
@torch.no_grad()
def test_a_padded_batch_is_each_conversation_alone(family_model: Make, family: str, attention: str) -> None:
    """Left-padded rows with memories of their own, continued from their cache, are each conversation alone."""
    model = family_model(family, attention)
    lengths, more = (LENGTH, 12, 4), 3
    before = [model(_ids(seed=10 + i, length=6)).memory for i in range(len(lengths))]
    texts = [_ids(seed=i, length=n + more) for i, n in enumerate(lengths)]
    ids = torch.stack(
        [torch.cat([torch.zeros(LENGTH - n, dtype=torch.long), t[0]]) for n, t in zip(lengths, texts, strict=True)]
    )
    mask = torch.stack([torch.arange(LENGTH + more) >= LENGTH - n for n in lengths]).long()
    first = model(ids[:, :LENGTH], attention_mask=mask[:, :LENGTH], memory=MemoryState.stack(before))
    second = model(ids[:, LENGTH:], attention_mask=mask, past_key_values=first.past_key_values, memory=first.memory)
    logits = torch.cat([first.logits, second.logits], 1)
    for row, (text, start) in enumerate(zip(texts, before, strict=True)):
        alone = model(text, memory=start)
        torch.testing.assert_close(logits[row, -text.shape[1] :], alone.logits[0], atol=2e-4, rtol=1e-3)
        _same_memory(second.memory.split()[row], alone.memory)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_saved_adapter_gives_the_same_logits(
    make_frozen: Callable[..., PreTrainedModel], family_model: Make, family: str, tmp_path: Path
) -> None:
    """An adapter that is saved and loaded onto the same decoder gives the same logits and takes its memory."""
    model, ids = family_model(family), _ids()
    save_adapter(model, tmp_path)
    loaded = load_adapter(make_frozen(family), tmp_path)
    first = model(ids)
    assert torch.equal(loaded(ids).logits, first.logits)
    assert torch.equal(loaded(ids, memory=first.memory).logits, model(ids, memory=first.memory).logits)


@pytest.mark.parametrize("head", ["q", "k", "v", "o"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_each_projection_is_steered_by_its_own_weights(family_model: Make, family: str, head: str) -> None:
    """What the memory adds to a layer's q, k, v or o is α/r · W_Δ y, and reaches that projection alone."""
    model, ids = family_model(family), _ids()
    memory = model(ids).memory
    layer = model.layers[0]
    weight = getattr(layer, f"delta_{head}_proj").detach()
    site = model.backbone.get_submodule(layer.name)
    heads = {h: getattr(layer, f"delta_{h}_proj").shape[0] for h in ("q", "k", "v")}
    names = ["qkv_proj", "o_proj"] if hasattr(site, "qkv_proj") else [f"{h}_proj" for h in "qkvo"]
    added: dict[str, Tensor] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            base = module.get_submodule("base")
            added[name] = output - base(inputs[0])
            if name != "o_proj":
                added["x"] = inputs[0]

        return hook

    hooks = [site.get_submodule(name).register_forward_hook(record(name)) for name in names]
    model(ids, memory=memory, write_mask=torch.zeros_like(ids, dtype=torch.bool))
    for hook in hooks:
        hook.remove()
    if "qkv_proj" in added:
        added |= dict(
            zip(["q_proj", "k_proj", "v_proj"], added["qkv_proj"].split(list(heads.values()), -1), strict=True)
        )
    query = torch.nn.functional.normalize((added["x"] @ layer.memory_q_proj.T).tanh(), dim=-1, eps=1e-6)
    reads = torch.einsum("ij,btj->bti", memory.layers[layer.name][0, 0], query)
    scale = model.config.alpha / model.config.rank
    torch.testing.assert_close(added[f"{head}_proj"], scale * reads @ weight.T, atol=1e-5, rtol=1e-4)

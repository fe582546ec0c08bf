"""Check the promises of a memory on every family of decoders."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from backbone import MemoryModel, MemoryState, load_adapter, save_adapter

FAMILIES = [
    "qwen3", "qwen2", "qwen3_moe", "llama", "mistral", "smollm3", "gemma3_text", "granite", "olmo2", "gpt_oss", "phi3",
]  # fmt: skip
EAGER_ONLY = {"gpt_oss"}  # its attention has sinks, which SDPA cannot express, nor flex attention on a CPU
MATRIX = [(f, a) for f in FAMILIES for a in ("eager", "sdpa", "flex_attention") if a == "eager" or f not in EAGER_ONLY]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# What may differ between two ways of computing the same, relative to the whole: the backbone's rounding.
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
# Half precision with every attention: the plainest family, and one with sliding layers and norms of its own.
CROSSED = [(f, a, d) for f in ("qwen3", "gemma3_text") for a in ("eager", "flex_attention") for d in DTYPES[1:]]
ROUNDED_MATRIX = [
    *((f, a, torch.float32) for f, a in MATRIX),
    *((f, "eager" if f in EAGER_ONLY else "sdpa", d) for f in FAMILIES for d in DTYPES[1:]),
    *CROSSED,
]
EXACT_MATRIX = [
    *((f, a, d) for f, a in MATRIX for d in DTYPES if d == torch.float32 or a != "flex_attention"),
    *(case for case in CROSSED if case[1] == "flex_attention"),
]
SAVED = [*((f, "eager", torch.float32) for f in FAMILIES), ("gemma3_text", "sdpa", torch.float32), *CROSSED[:4]]
LENGTH = 21

pytestmark = [
    # transformers asks torch for both, and a CPU has no fused form to compile to.
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning"),
]

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


def _same(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert float((found.float() - expected.float()).norm() / expected.float().norm()) < ROUNDING[dtype]


def _same_memory(found: MemoryState, expected: MemoryState, dtype: torch.dtype) -> None:
    assert found.layers.keys() == expected.layers.keys()
    for name, tensor in expected.layers.items():
        _same(found.layers[name], tensor, dtype)


@pytest.fixture(autouse=True)
def uncompiled() -> Iterator[None]:
    """Run flex attention as it is written: compiling it takes minutes, and is torch's business."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize(("family", "attention", "dtype"), EXACT_MATRIX, ids=str)
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


@pytest.mark.parametrize(("family", "attention", "dtype"), ROUNDED_MATRIX, ids=str)
@torch.no_grad()
def test_pieces_and_decoding_equal_one_pass(
    family_model: Make, family: str, attention: str, dtype: torch.dtype
) -> None:
    """Prefill in pieces, then token by token from the cache, gives the logits and the memory of one pass."""
    ids = _ids()
    model = family_model(family, attention, dtype)
    whole = model(ids)
    logits, memory = _in_pieces(model, ids, [5, 9, 3, *[1] * (LENGTH - 17)])
    _same(logits, whole.logits, dtype)
    _same_memory(memory, whole.memory, dtype)


@pytest.mark.parametrize(("family", "attention", "dtype"), ROUNDED_MATRIX, ids=str)
@torch.no_grad()
def test_a_padded_batch_is_each_conversation_alone(
    family_model: Make, family: str, attention: str, dtype: torch.dtype
) -> None:
    """Left-padded rows with memories of their own, continued from their cache, are each conversation alone."""
    model = family_model(family, attention, dtype)
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
        _same(logits[row, -text.shape[1] :], alone.logits[0], dtype)
        _same_memory(second.memory.split()[row], alone.memory, dtype)


@pytest.mark.parametrize(("family", "attention", "dtype"), SAVED, ids=str)
@torch.no_grad()
def test_a_saved_adapter_gives_the_same_logits(
    make_frozen: Callable[..., PreTrainedModel],
    family_model: Make,
    family: str,
    attention: str,
    dtype: torch.dtype,
    tmp_path: Path,
) -> None:
    """An adapter that is saved and loaded onto the same decoder gives the same logits and takes its memory."""
    model, ids = family_model(family, attention, dtype), _ids()
    save_adapter(model, tmp_path)
    loaded = load_adapter(make_frozen(family, attention, dtype), tmp_path)
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

"""Check every combination of options against the equations, written here token by token in float64."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from backbone import ConfigError, DeltaMemConfig, MemoryModel, MemoryState, attach_memory, load_adapter, save_adapter
from backbone.adapter.published import write_published

ROWS, LENGTH, PADDING = 2, 11, 3
TOLERANCE = 1e-4


class Definition:
    """One layer's memory in one conversation as the equations say it, for forward hooks of the frozen projections."""

    def __init__(self, config: DeltaMemConfig, weights: dict[str, Tensor], inputs: dict[str, Tensor]) -> None:
        self.config, self.weights, self.inputs = config, weights, inputs
        self.states = torch.zeros(config.num_states, config.rank, config.rank, dtype=torch.float64)

    def direction(self, name: str, x: Tensor, head: int) -> Tensor:
        """Give a query or key of one state."""
        projected = self.part(name, x, head)
        if not self.config.normalize_qk:
            return projected
        squashed = projected.tanh()
        return squashed / squashed.norm().clamp_min(1e-6)

    def part(self, name: str, x: Tensor, head: int) -> Tensor:
        """Project x and give the rows of one state."""
        return (self.weights[name] @ x).view(self.config.num_states, -1)[head]

    def gate(self, name: str, x: Tensor, head: int) -> Tensor:
        """Give a gate for each row of one state."""
        bias = self.weights[f"{name}_bias"].view(self.config.num_states, -1)[head]
        return (self.part(f"{name}_proj", x, head) + bias).sigmoid().expand(self.config.rank)

    def write(self, x: Tensor) -> None:
        """Write x into every state, row by row."""
        for head, state in enumerate(self.states):
            key, value = self.direction("memory_k_proj", x, head), self.part("memory_v_proj", x, head)
            beta = self.gate("beta", x, head)
            keep = 1 - beta if self.config.coupled_decay else self.gate("lambda", x, head)
            if self.config.update_mode == "no_lambda":
                keep = torch.ones_like(beta)
            erase = keep * beta if self.config.update_mode == "lambda_outside" else beta
            for i in range(self.config.rank):
                state[i] = keep[i] * state[i] - erase[i] * (state[i] @ key) * key + beta[i] * value[i] * key

    def read(self, x: Tensor) -> Tensor:
        """Read every state with the query of x."""
        heads = enumerate(self.states)
        return torch.cat([state @ self.direction("memory_q_proj", x, head) for head, state in heads])

    def run(self, tokens: Tensor) -> Tensor:
        """Read at every token of x [T, d], and write after each token, or after each segment its mean."""
        reads: list[Tensor] = []
        members: list[Tensor] = []
        segment = None
        for x, writes, here in zip(tokens, self.inputs["write_mask"], self.inputs["segment_ids"], strict=True):
            if self.config.granularity != "token" and int(here) != segment:
                self.end(members)
                members, segment = [], int(here)
            reads.append(self.read(x))
            if writes and self.config.granularity == "token":
                self.write(x)
            elif writes and here >= 0:
                members.append(x)
        if self.config.granularity != "token":
            self.end(members)
        return torch.stack(reads)

    def end(self, members: list[Tensor]) -> None:
        """Write the mean of a segment, if it has members."""
        if members:
            self.write(torch.stack(members).mean(0))

    def hook(self, head: str) -> Callable[..., Tensor]:
        """Make the forward hook that adds what memory says to a frozen projection."""

        def add(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            if head == "q":
                self.reads = self.run(inputs[0][0])[None]
            if head not in self.config.delta_heads:
                return output
            added = self.reads @ self.weights[f"delta_{head}_proj"].T * self.config.alpha / self.config.rank
            if self.config.delta_scale != "fixed":
                raw = self.weights["delta_scale_raw"]["qkvo".index(head) if self.config.delta_scale == "head" else 0]
                added = added * self.config.delta_scale_max * raw.sigmoid()
            if head == "o" and self.config.delta_o_rmsnorm:
                size = (added.square().mean(-1, keepdim=True) + self.config.delta_o_rmsnorm_eps).sqrt()
                added = added / size * self.weights["delta_o_rmsnorm_weight"]
            return output + added

        return add


def _configs() -> st.SearchStrategy[DeltaMemConfig]:
    heads = st.sets(st.sampled_from("qkvo"), min_size=1).map(tuple)
    modes = st.sampled_from(
        [
            ("standard", True),
            ("standard", False),
            ("lambda_outside", True),
            ("lambda_outside", False),
            ("no_lambda", True),
        ]
    )

    @st.composite
    def draw_config(draw: st.DrawFn) -> DeltaMemConfig:
        mode, coupled = draw(modes)
        steered = draw(heads)
        return DeltaMemConfig(
            rank=draw(st.integers(1, 5)),
            alpha=draw(st.sampled_from([0.5, 4.0, 16.0])),
            num_states=draw(st.integers(1, 3)),
            granularity=draw(st.sampled_from(["token", "message", "sentence"])),
            delta_heads=steered,
            normalize_qk=draw(st.booleans()),
            per_row_gates=draw(st.booleans()),
            coupled_decay=coupled,
            update_mode=mode,
            delta_o_rmsnorm=draw(st.booleans()) if "o" in steered else False,
            delta_o_rmsnorm_eps=draw(st.sampled_from([1e-6, 1e-2])),
            delta_scale=draw(st.sampled_from(["fixed", "layer", "head"])),
            delta_scale_max=draw(st.sampled_from([1.5, 4.0])),
            target_layers=draw(st.sampled_from([(), (0,), (1,)])),
        )

    return draw_config()


def _inputs(seed: int) -> dict[str, Tensor]:
    """Draw two conversations, the second one padded on its left, with messages of a few tokens."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(ROWS, LENGTH, dtype=torch.long)
    mask[1, :PADDING] = 0
    begins = torch.rand(ROWS, LENGTH, generator=generator) < 0.4
    silent = torch.rand(ROWS, LENGTH, generator=generator) < 0.1
    return {
        "input_ids": torch.randint(3, 64, (ROWS, LENGTH), generator=generator),
        "attention_mask": mask,
        "write_mask": torch.rand(ROWS, LENGTH, generator=generator) < 0.8,
        "segment_ids": begins.cumsum(1).masked_fill(silent, -1),
    }


def _expected(
    frozen: PreTrainedModel, model: MemoryModel, inputs: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run the definition inside a frozen decoder in float64, on one conversation; give logits [T, V] and states."""
    layers = {}
    for layer in model.layers:
        weights = {name: p.detach().double() for name, p in layer.named_parameters()}
        layers[layer.name] = Definition(model.config, weights, inputs)
        for head in "qkvo":
            projection = frozen.get_submodule(f"{layer.name}.{head}_proj")
            projection.register_forward_hook(layers[layer.name].hook(head))
    logits = frozen.double()(input_ids=inputs["input_ids"][None]).logits[0]
    return logits, {name: layer.states for name, layer in layers.items()}


def _run(model: MemoryModel, inputs: dict[str, Tensor], cut: bool) -> tuple[Tensor, MemoryState]:
    """Run the model in one pass, or with the last token decoded by itself; give logits and the last memory."""
    tokens: dict[str, Any] = {name: tensor for name, tensor in inputs.items() if name != "attention_mask"}
    if model.config.granularity == "token":
        del tokens["segment_ids"]
    if not cut:
        whole = model(**tokens, attention_mask=inputs["attention_mask"])
        return whole.logits, whole.memory
    first = model(**{n: t[:, :-1] for n, t in tokens.items()}, attention_mask=inputs["attention_mask"][:, :-1])
    last = model(
        **{name: tensor[:, -1:] for name, tensor in tokens.items()},
        attention_mask=inputs["attention_mask"],
        past_key_values=first.past_key_values,
        memory=first.memory,
    )
    return torch.cat([first.logits, last.logits], 1), last.memory


def _error(found: Tensor, expected: Tensor) -> float:
    # The one number of a state of rank 1 can be a small difference of terms near one, whose float32 rounding it has.
    return float((found - expected).norm() / expected.norm().clamp_min(1e-2))


@example(
    config=DeltaMemConfig(
        rank=1, granularity="message", delta_heads=("q",), normalize_qk=False, per_row_gates=False,
        update_mode="standard", beta_bias_init=-1.5, delta_scale="layer", delta_scale_max=1.5, target_layers=(),
    ),
    seed=1_239_409_079,
    published=False,
    cut=False,
)  # fmt: skip
@given(config=_configs(), seed=st.integers(0, 2**31), published=st.booleans(), cut=st.booleans())
@settings(max_examples=60, deadline=None)
@torch.no_grad()
def test_every_combination_of_options_is_the_definition(
    make_frozen: Callable[..., PreTrainedModel], config: DeltaMemConfig, seed: int, published: bool, cut: bool
) -> None:
    """An adapter of any options, from files of either format, prefilling or decoding, is what the equations say."""
    model = attach_memory(make_frozen("llama"), config, seed=0)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.memory_layers.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        if published:
            write_published(Path(folder), config, model.adapter_tensors())
        else:
            save_adapter(model, folder)
        loaded = load_adapter(make_frozen("llama"), folder)
    inputs = _inputs(seed)
    found, memory = _run(loaded, inputs, cut)
    for row, mask in enumerate(inputs.pop("attention_mask") != 0):
        alone = {name: tensor[row][mask] for name, tensor in inputs.items()}
        logits, states = _expected(make_frozen("llama"), model, alone)
        assert _error(found[row][mask], logits) < TOLERANCE
        assert memory.layers.keys() == states.keys()
        for name, state in states.items():
            assert _error(memory.layers[name][row], state) < TOLERANCE


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"num_states": 0}, "num_states must be at least 1, got 0"),
        ({"alpha": 0.0}, "alpha must be above 0, got 0.0"),
        ({"alpha": float("nan")}, "alpha must be above 0, got nan"),
        ({"delta_o_rmsnorm_eps": -1.0}, "delta_o_rmsnorm_eps must be above 0"),
        ({"granularity": "word"}, "granularity must be one of .* got 'word'"),
        ({"update_mode": "x"}, "update_mode must be one of .* got 'x'"),
        ({"delta_scale": "row"}, "delta_scale must be one of .* got 'row'"),
        ({"delta_scale_init": 2.0}, "between 0 and delta_scale_max, got 2.0 and 2.0"),
        ({"delta_heads": ()}, "non-empty subset"),
        ({"delta_heads": ("x",)}, "non-empty subset"),
        ({"delta_heads": ("q",), "delta_o_rmsnorm": True}, "not in delta_heads"),
        ({"update_mode": "no_lambda", "coupled_decay": False}, "would do nothing"),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], reason: str) -> None:
    """An option outside its range, or without effect beside another, is a ConfigError that says so."""
    with pytest.raises(ConfigError, match=reason):
        DeltaMemConfig(**options)


@pytest.mark.parametrize(("scale", "size"), [("fixed", None), ("layer", 1), ("head", 4)])
def test_a_learned_scale_begins_where_it_is_told(
    make_frozen: Callable[..., PreTrainedModel], scale: str, size: int | None
) -> None:
    """A new adapter's factor is delta_scale_init: one number a layer, or one for each of q, k, v and o."""
    config = DeltaMemConfig(rank=4, delta_scale=scale, delta_scale_init=1.5, delta_scale_max=3.0)
    layer = attach_memory(make_frozen("llama"), config, seed=0).layers[0]
    raw = dict(layer.named_parameters()).get("delta_scale_raw")
    assert (None if raw is None else len(raw)) == size
    if raw is not None:
        torch.testing.assert_close(3.0 * raw.detach().sigmoid(), torch.full((len(raw),), 1.5))

"""Compare what a pass tells of the memory with the definitions, token by token."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from backbone import DeltaMemConfig, MemoryModel, MemoryOutput, MemoryState, attach_memory
from backbone.adapter.telemetry import LayerTelemetry, Telemetry

MakeFrozen = Callable[..., PreTrainedModel]
KINDS: dict[str, dict[str, Any]] = {
    "tsw": {},
    "msw": {"num_states": 3, "delta_heads": ("q", "k", "v", "o"), "update_mode": "no_lambda"},
    "scalar-gates": {"num_states": 2, "per_row_gates": False, "coupled_decay": False, "update_mode": "lambda_outside"},
    "normed-o": {"delta_heads": ("o",), "delta_o_rmsnorm": True},
    "ssw": {"granularity": "message"},
    "ssw-2-states": {"granularity": "message", "num_states": 2, "coupled_decay": False},
}
# Three conversations, the second and third padded on the left; -1 is no message, and the third has none.
SEGMENTS = torch.tensor([
    [0] * 9 + [1] * 12 + [-1] * 5 + [2] * 10 + [0],
    [-1] * 6 + [4] * 20 + [5] * 11,
    [-1] * 37,
])  # fmt: skip
MASK = torch.tensor([[1] * 37, [0] * 6 + [1] * 31, [0] * 11 + [1] * 26])
IDS = torch.tensor([[0, 1, 2, 0], [4, 5, -1, -1], [-1, -1, -1, -1]])


def build(make_frozen: MakeFrozen, **options: Any) -> MemoryModel:
    """Attach a memory whose weights matter to a random decoder."""
    model = attach_memory(make_frozen("qwen3"), DeltaMemConfig(rank=4, **options), seed=0)
    generator = torch.Generator().manual_seed(0)
    for tensor in model.adapter_tensors().values():
        torch.nn.init.normal_(tensor, std=0.4, generator=generator)
    model.refresh_fingerprint()
    return model


def tokens(rows: int = 3, length: int = 37) -> Tensor:
    return torch.randint(3, 64, (rows, length), generator=torch.Generator().manual_seed(1))


def some_memory(model: MemoryModel, rows: int) -> MemoryState:
    generator = torch.Generator().manual_seed(2)
    empty = model.empty_memory(rows)
    layers = {name: torch.randn(t.shape, generator=generator) for name, t in empty.layers.items()}
    return MemoryState(layers, empty.fingerprint)


class Seen(NamedTuple):
    """Hold what a layer was given and what its frozen o_proj gave, by layer name [B, T, d]."""

    x: dict[str, Tensor]
    o: dict[str, Tensor]


@contextmanager
def watch(model: MemoryModel) -> Iterator[Seen]:
    """Note the inputs of the frozen q projections and the outputs of the frozen o projections."""
    seen = Seen({}, {})
    handles = []
    for layer in model.layers:
        site = model.backbone.get_submodule(layer.name)

        def note_x(_: Any, inputs: tuple[Tensor], __: Tensor, name: str = layer.name) -> None:
            assert name not in seen.x, "the layer ran twice"
            seen.x[name] = inputs[0].double()

        def note_o(_: Any, __: Any, out: Tensor, name: str = layer.name) -> None:
            seen.o[name] = out.double()

        handles += [site.q_proj.base.register_forward_hook(note_x), site.o_proj.base.register_forward_hook(note_o)]
    yield seen
    for handle in handles:
        handle.remove()


class Definition:
    """Run one layer's memory over one conversation as the equations say, and note every figure by message."""

    def __init__(self, model: MemoryModel, name: str, state: Tensor) -> None:
        self.config = model.config
        prefix = name + "."
        found = model.adapter_tensors().items()
        self.w = {n.removeprefix(prefix): t.double() for n, t in found if n.startswith(prefix)}
        self.state = state.double()
        self.writes: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self.corrections: dict[int, list[float]] = defaultdict(list)
        self.norms: dict[int, float] = {}

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(self.config.num_states, -1)

    def read(self, message: int, x: Tensor, o: Tensor) -> None:
        """Read one token and compare what it adds with attention's output."""
        q = self._heads(torch.tanh(self.w["memory_q_proj"] @ x))
        y = (self.state @ (q / q.norm(dim=-1, keepdim=True))[..., None]).flatten()
        delta = self.config.alpha / self.config.rank * (self.w["delta_o_proj"] @ y)
        if self.config.delta_o_rmsnorm:
            delta = self.w["delta_o_rmsnorm_weight"] * delta / (delta.square().mean() + 1e-6).sqrt()
        self.corrections[message].append(float(delta.norm() / o.norm()))

    def write(self, message: int, x: Tensor) -> None:
        """Write one input, a token's or a message's mean, and compare its value with what was held."""
        k = self._heads(torch.tanh(self.w["memory_k_proj"] @ x))
        k = k / k.norm(dim=-1, keepdim=True)
        v = self._heads(self.w["memory_v_proj"] @ x)
        beta = self._heads(torch.sigmoid(self.w["beta_proj"] @ x + self.w["beta_bias"]))
        lam = 1 - beta
        if not self.config.coupled_decay:
            lam = self._heads(torch.sigmoid(self.w["lambda_proj"] @ x + self.w["lambda_bias"]))
        if self.config.update_mode == "no_lambda":
            lam = torch.ones_like(beta)
        erase = lam * beta if self.config.update_mode == "lambda_outside" else beta
        held = (self.state @ k[..., None])[..., 0]
        self.writes[message].append((float((v - held).norm() / v.norm()), float(beta.mean())))
        self.state = lam[..., None] * self.state + (beta * v - erase * held)[..., None] * k[..., None, :]

    def figures(self, message: int) -> list[float]:
        """Give a message's surprise, write gate, correction and norm."""
        writes, corrections = torch.tensor(self.writes[message] or [(torch.nan, torch.nan)]), self.corrections[message]
        return [*writes.mean(0).tolist(), sum(corrections) / len(corrections), self.norms[message]]


def define(
    model: MemoryModel, seen: Seen, memory: MemoryState, segments: Tensor, mask: Tensor, write: Tensor
) -> dict[str, list[list[list[float]]]]:
    """Give by layer, conversation and message: surprise, write gate, correction, norm."""
    by_message = model.config.granularity == "message"
    found: dict[str, list[list[list[float]]]] = {}
    for name, states in memory.layers.items():
        found[name] = []
        for row in range(len(segments)):
            layer, order, last = Definition(model, name, states[row]), [], None
            pending: list[Tensor] = []
            real = [t for t in range(segments.shape[1]) if mask[row, t]]
            for place, t in enumerate(real):
                segment = int(segments[row, t])
                if segment != last:
                    order.append((len(order), segment))
                last, key = segment, len(order)
                layer.read(key, seen.x[name][row, t], seen.o[name][row, t])
                if write[row, t] and by_message and segment >= 0:
                    pending.append(seen.x[name][row, t])
                elif write[row, t] and not by_message:
                    layer.write(key, seen.x[name][row, t])
                ended = place + 1 == len(real) or int(segments[row, real[place + 1]]) != segment
                if ended and pending:
                    layer.write(key, torch.stack(pending).mean(0))
                    pending = []
                layer.norms[key] = float(layer.state.norm())
            found[name].append([layer.figures(number + 1) for number, segment in order if segment >= 0])
    return found


def check(telemetry: Telemetry | None, expected: dict[str, list[list[list[float]]]]) -> None:
    assert telemetry is not None
    assert telemetry.layers.keys() == expected.keys()
    for name, rows in expected.items():
        assert all(figure.shape == telemetry.ids.shape for figure in telemetry.layers[name])
        for row, messages in enumerate(rows):
            found = torch.stack([figure[row] for figure in telemetry.layers[name]], -1)
            torch.testing.assert_close(
                found[: len(messages)], torch.tensor(messages).view(-1, 4), atol=1e-4, rtol=1e-3, equal_nan=True
            )
            assert found[len(messages) :].isnan().all()


def some_writes() -> Tensor:
    """Let four tokens of five write, and none of the first conversation's second message."""
    write = torch.rand(SEGMENTS.shape, generator=torch.Generator().manual_seed(3)) > 0.2
    write[0, 9:21] = False
    return write


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_figures_are_their_definitions(make_frozen: MakeFrozen, kind: str) -> None:
    """Every figure of every message and layer is what the equations give, beside padding, masks and no messages."""
    model = build(make_frozen, **KINDS[kind])
    memory, write = some_memory(model, 3), some_writes()
    with watch(model) as seen:
        out = model(
            tokens(), MASK, memory=memory, write_mask=write, segment_ids=SEGMENTS, state_positions=[5, 30],
            telemetry=True,
        )  # fmt: skip
    assert out.telemetry is not None
    assert torch.equal(out.telemetry.ids, IDS)
    check(out.telemetry, define(model, seen, memory, SEGMENTS, MASK, write))


@pytest.mark.parametrize("length", [1, 7, 37])
@torch.no_grad()
def test_without_ids_a_pass_is_one_message(make_frozen: MakeFrozen, length: int) -> None:
    """The figures are of all tokens together, for a single token and in both forms of the scan."""
    model = build(make_frozen, num_states=2)
    memory, everything = some_memory(model, 2), torch.ones(2, length, dtype=torch.bool)
    with watch(model) as seen:
        out = model(tokens(2, length), memory=memory, telemetry=True)
    assert out.telemetry is not None
    assert out.telemetry.ids.tolist() == [[0], [0]]
    check(out.telemetry, define(model, seen, memory, torch.zeros(2, length), everything, everything))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_measuring_changes_nothing(make_frozen: MakeFrozen, kind: str) -> None:
    """Logits and memories are the same bits with and without telemetry, and it is off unless asked for."""
    model = build(make_frozen, **KINDS[kind])
    by_message = model.config.granularity == "message"
    given: dict[str, Any] = {"memory": some_memory(model, 3), "write_mask": some_writes(), "state_positions": [4, 20]}
    plain: MemoryOutput = model(tokens(), MASK, segment_ids=SEGMENTS if by_message else None, **given)
    assert plain.telemetry is None
    measured: MemoryOutput = model(tokens(), MASK, segment_ids=SEGMENTS, telemetry=True, **given)
    assert torch.equal(measured.logits, plain.logits)
    assert len(measured.memory_at) == len(plain.memory_at) == 2
    for ours, theirs in zip([measured.memory, *measured.memory_at], [plain.memory, *plain.memory_at], strict=True):
        assert all(torch.equal(ours.layers[name], state) for name, state in theirs.layers.items())
    hidden = model.hidden_states(tokens(), MASK, segment_ids=SEGMENTS, telemetry=True, **given)
    for name, figures in _layers(measured.telemetry).items():
        for ours, theirs in zip(_layers(hidden.telemetry)[name], figures, strict=True):
            assert torch.equal(ours.nan_to_num(-1), theirs.nan_to_num(-1))
    assert model.hidden_states(tokens(), write_mask=torch.zeros(3, 37, dtype=torch.bool)).telemetry is None


def _layers(telemetry: Telemetry | None) -> dict[str, LayerTelemetry]:
    assert telemetry is not None
    return dict(telemetry.layers)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_one_token_is_measured_like_many(make_frozen: MakeFrozen, kind: str) -> None:
    """A single token, as in decoding, has the defined figures, and its memory the same bits as without them."""
    model = build(make_frozen, **KINDS[kind])
    by_message = model.config.granularity == "message"
    ids, segments, memory = tokens(3, 1), torch.tensor([[0], [7], [-1]]), some_memory(model, 3)
    everything = torch.ones(3, 1, dtype=torch.bool)
    plain = model(ids, memory=memory, segment_ids=segments if by_message else None)
    with watch(model) as seen:
        out = model(ids, memory=memory, segment_ids=segments, telemetry=True)
    assert out.telemetry is not None
    assert torch.equal(out.telemetry.ids, segments)
    check(out.telemetry, define(model, seen, memory, segments, everything, everything))
    assert torch.equal(out.logits, plain.logits)
    assert all(torch.equal(out.memory.layers[name], state) for name, state in plain.memory.layers.items())


@pytest.mark.parametrize("kind", ["tsw", "ssw"])
@torch.no_grad()
def test_reading_alone_has_norms_and_corrections(make_frozen: MakeFrozen, kind: str) -> None:
    """A pass that writes nothing has no surprise and no gate, and the norm is that of the memory it read."""
    model = build(make_frozen, **KINDS[kind])
    memory, nothing = some_memory(model, 3), torch.zeros(3, 37, dtype=torch.bool)
    for segments, shape in ((None, (3, 1)), (SEGMENTS, (3, 4))):
        out = model(tokens(), memory=memory, write_mask=nothing, segment_ids=segments, telemetry=True)
        for name, figures in _layers(out.telemetry).items():
            assert figures.surprise.shape == shape
            assert figures.surprise.isnan().all()
            assert figures.write_gate.isnan().all()
            torch.testing.assert_close(figures.norm[:2, 0], memory.norms()[name].square().sum(-1).sqrt()[:2])
            assert (figures.correction[:2, 0] > 0).all()


@torch.no_grad()
def test_everything_is_new_to_an_empty_memory(make_frozen: MakeFrozen) -> None:
    """The first token's surprise is exactly 1 and its correction 0; without an o head every correction is 0."""
    model = build(make_frozen, delta_heads=("q",))
    for figures in _layers(model(tokens(1, 1), telemetry=True).telemetry).values():
        assert [figures.surprise.item(), figures.correction.item()] == [1.0, 0.0]
    for figures in _layers(model(tokens(1), memory=some_memory(model, 1), telemetry=True).telemetry).values():
        assert figures.correction.item() == 0.0


@torch.no_grad()
def test_a_message_in_pieces_is_measured_whole_by_its_last_piece(make_frozen: MakeFrozen) -> None:
    """Where a message is written once, the piece that ends it has the surprise, gate and norm of the whole."""
    model = build(make_frozen, **KINDS["ssw"])
    ids, segments = tokens(2), torch.tensor([[0] * 10 + [1] * 27]).expand(2, -1)
    whole = model(ids, segment_ids=segments, telemetry=True)
    first = model(ids[:, :20], segment_ids=segments[:, :20])
    given = {"past_key_values": first.past_key_values, "memory": first.memory}
    rest = model(ids[:, 20:], segment_ids=segments[:, 20:], telemetry=True, **given)
    assert rest.telemetry.ids.tolist() == [[1], [1]]
    for name, figures in _layers(rest.telemetry).items():
        for field in ("surprise", "write_gate", "norm"):
            expected = getattr(_layers(whole.telemetry)[name], field)[:, 1:]
            torch.testing.assert_close(getattr(figures, field), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["tsw", "ssw"])
def test_figures_are_cut_from_the_graph(make_frozen: MakeFrozen, kind: str) -> None:
    """In training the figures carry no gradient, and the gradients are those of a pass without them."""
    gradients = []
    for telemetry in (True, False):
        model = build(make_frozen, **KINDS[kind])
        segments = SEGMENTS if telemetry or kind == "ssw" else None
        out = model(tokens(), MASK, segment_ids=segments, telemetry=telemetry)
        if telemetry:
            assert not any(f.requires_grad for figures in _layers(out.telemetry).values() for f in figures)
        out.logits.square().mean().backward()
        gradients.append([p.grad for p in model.memory_layers.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_half_precision_decoders_are_measured_in_float32(make_frozen: MakeFrozen) -> None:
    """On a bf16 decoder the figures are float32 and finite."""
    model = attach_memory(make_frozen("qwen3", "eager", torch.bfloat16), DeltaMemConfig(rank=4), seed=0)
    for figures in _layers(model(tokens(), telemetry=True).telemetry).values():
        assert all(figure.dtype == torch.float32 and figure.isfinite().all() for figure in figures)


@torch.no_grad()
def test_no_messages_at_all_are_an_empty_table(make_frozen: MakeFrozen) -> None:
    """If no token belongs to a message there is nothing to tell, and the memory is written all the same."""
    model = build(make_frozen)
    out = model(tokens(1), segment_ids=torch.full((1, 37), -1), telemetry=True)
    assert all(figure.shape == (1, 0) for figures in _layers(out.telemetry).values() for figure in figures)
    assert all(state.any() for state in out.memory.layers.values())


def test_ids_that_nothing_uses_are_refused(make_frozen: MakeFrozen) -> None:
    """An adapter that writes every token takes segment_ids for telemetry only, and of the right shape."""
    model = build(make_frozen)
    with pytest.raises(ValueError, match="telemetry was not asked for"):
        model(tokens(), segment_ids=SEGMENTS)
    with pytest.raises(ValueError, match="segment_ids must be integers"):
        model(tokens(), segment_ids=SEGMENTS[:, 1:], telemetry=True)


class HostReads(TorchDispatchMode):
    """Count the operations whose result the host has to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("length", [1, 37])
@pytest.mark.parametrize(("kind", "with_ids"), [("tsw", False), ("tsw", True), ("ssw", True)])
@torch.no_grad()
def test_the_host_waits_once_at_most(make_frozen: MakeFrozen, kind: str, with_ids: bool, length: int) -> None:
    """A pass waits for the device once more for telemetry, to count messages; never for one token or no ids."""
    model = build(make_frozen, **KINDS[kind])
    counts = []
    for telemetry in (False, True):
        ids = SEGMENTS[:, :length] if with_ids and (telemetry or kind == "ssw") else None
        memory = some_memory(model, 3)
        with HostReads() as reads:
            model(tokens(3, length), memory=memory, segment_ids=ids, telemetry=telemetry)
        counts.append(reads.count)
    assert counts[1] - counts[0] == (1 if with_ids and length > 1 else 0)

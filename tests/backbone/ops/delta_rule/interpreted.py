"""Run the Triton kernels on a CPU, by Triton's interpreter, and print their largest relative errors as JSON.

A program of its own, because Triton decides when it is imported whether it interprets: TRITON_INTERPRET=1.
"""

import json
from itertools import product
from typing import Any, ClassVar, get_args

import torch
import triton
from torch import Tensor
from torch.nn.functional import normalize
from transformers import Qwen3Config, Qwen3ForCausalLM
from triton.runtime.interpreter import InterpretedFunction, InterpreterOptions, interpreter_builder

from backbone import DeltaMemConfig, attach_memory
from backbone.ops.delta_rule import UpdateMode, delta_rule, fused_step, has_triton, triton_scan

CHUNK = 16  # short chunks, for the interpreter takes its time
LAUNCHED_CHUNK = triton_scan.CHUNK
GENERATOR = torch.Generator().manual_seed(0)


class Guard(torch.cuda.device_of):  # type: ignore[misc]
    """Note of every launch whether it is made under a guard, which chooses the device on a machine with several."""

    depth = 0
    launches: ClassVar[list[bool]] = []

    def __enter__(self) -> None:
        Guard.depth += 1
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        Guard.depth -= 1
        super().__exit__(*error)


def note_launches() -> None:
    """Let `Guard` see every launch of a kernel."""
    launch = InterpretedFunction.run

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        Guard.launches.append(Guard.depth > 0)
        return launch(self, *arguments, **options)

    InterpretedFunction.run = noted
    torch.cuda.device_of = Guard  # type: ignore[misc]


def hurry() -> None:
    """Spare the interpreter two thirds of its time, which go into what changes no result here.

    It prepares Triton's language anew for every call inside of a kernel, though the first call's work stays, and looks
    for overflows of integers, none of which reaches a thousand.
    """
    interpreter_builder.options = InterpreterOptions(sanitize_overflow=False)
    first, prepared = InterpretedFunction.__call__, set()

    def called(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.fn in prepared:
            return self.rewrite()(*arguments, **options)
        prepared.add(self.fn)
        return first(self, *arguments, **options)

    InterpretedFunction.__call__ = called


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def scan_errors(
    mode: UpdateMode, *, heads: int, rank: int, length: int, gates: int, own_decay: bool, batch: int = 2
) -> dict[str, float]:
    """Compare reads, states and every gradient with the definition's."""
    leaves = [
        normalize(draw(batch, length, heads, rank), dim=-1),
        normalize(draw(batch, length, heads, rank), dim=-1),
        draw(batch, length, heads, rank),
        torch.sigmoid(draw(batch, length, heads, gates) - 1),
        *([torch.sigmoid(draw(batch, length, heads, gates) + 2)] if own_decay else []),
        draw(batch, heads, rank, rank),
    ]
    for leaf in leaves:
        leaf.requires_grad_()
    mask = torch.rand(batch, length, generator=GENERATOR) > 0.2
    weights = draw(batch, length, heads, rank)
    results = []
    for form in ("triton", "naive"):
        out = delta_rule(*leaves[:-1], mode=mode, initial_state=leaves[-1], write_mask=mask, form=form)
        loss = (out.y * weights).sum() + out.final_state.square().sum()
        results.append((out.y, out.final_state, *torch.autograd.grad(loss, leaves, allow_unused=True)))
    names = ("y", "state", *(f"gradient {number}" for number in range(len(leaves))))
    pairs = zip(names, *results, strict=True)
    return {name: error(ours, theirs) for name, ours, theirs in pairs if theirs is not None}


def position_errors() -> dict[str, float]:
    """Compare the states at positions around a chunk's ends, and what was held under each key."""
    q, k, v = (normalize(draw(1, CHUNK + 4, 2, 4), dim=-1) for _ in range(3))
    gates, state = torch.sigmoid(draw(1, CHUNK + 4, 2, 4)), draw(1, 2, 4, 4)
    at = torch.tensor([[0, CHUNK + 4, 1, CHUNK - 1, CHUNK, CHUNK + 1]])
    ours, theirs = (
        delta_rule(q, k, v, gates, initial_state=state, state_positions=at, predict=True, form=form)
        for form in ("triton", "naive")
    )
    assert ours.states_at is not None
    assert theirs.states_at is not None
    assert ours.predicted is not None
    assert theirs.predicted is not None
    return {
        "positions": error(ours.states_at, theirs.states_at),
        "predictions": error(ours.predicted, theirs.predicted),
    }


def step_errors(
    mode: UpdateMode, *, own_decay: bool, per_row: bool, rank: int = 3, scale: float = 1.0
) -> dict[str, float]:
    """Compare a decode step with the projections and the definition, one by one; the second row is not written."""
    batch, heads, hidden = 2, 2, 300
    gates = heads * (rank if per_row else 1)
    weight = draw(3 * heads * rank + gates * (1 + own_decay), hidden) / hidden**0.5
    bias = torch.cat([torch.zeros(3 * heads * rank), draw(gates * (1 + own_decay))])
    x, state, write = scale * draw(batch, hidden), draw(batch, heads, rank, rank), torch.tensor([True, False])
    y, after = fused_step()(
        x.bfloat16(), weight, bias, state, write, mode=mode, own_decay=own_decay, per_row=per_row, eps=1e-6
    )
    projected = torch.nn.functional.linear(x.bfloat16().float(), weight, bias)[:, None]
    widths = [heads * rank] * 3 + [gates] * (1 + own_decay)
    parts = [part.view(batch, 1, heads, -1) for part in torch.split(projected, widths, dim=-1)]
    q, k = (normalize(part.tanh(), dim=-1, eps=1e-6) for part in parts[:2])
    lam = parts[4].sigmoid() if own_decay else None
    theirs = delta_rule(
        q, k, parts[2], parts[3].sigmoid(), lam, mode=mode, initial_state=state, write_mask=write[:, None], form="naive"
    )
    return {"y": error(y, theirs.y.flatten(1)), "state": error(after, theirs.final_state)}


def model_errors() -> dict[str, float]:
    """Compare a model that prefills and decodes with Triton, as it does on a GPU, with the naive form."""
    config = Qwen3Config(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    model = attach_memory(Qwen3ForCausalLM(config).eval(), DeltaMemConfig(rank=4), seed=0)
    model.backbone.requires_grad_(False)
    prompt, following = torch.arange(20)[None], torch.tensor([[50]])
    with torch.no_grad():
        first = model(prompt)
        ours = model(following, past_key_values=first.past_key_values, memory=first.memory)
    # With gradients a step is not fused.
    for layer in model.layers:
        layer.form = "naive"
    first = model(prompt)
    theirs = model(following, past_key_values=first.past_key_values, memory=first.memory)
    states = {name: error(state, theirs.memory.layers[name]) for name, state in ours.memory.layers.items()}
    return {"logits": error(ours.logits, theirs.logits), **states}


def main() -> None:
    triton_scan.CHUNK = CHUNK
    assert triton.knobs.runtime.interpret
    assert has_triton(torch.zeros(1))
    note_launches()
    hurry()
    errors = position_errors()
    cases: tuple[tuple[UpdateMode, int, int, int, int, bool], ...] = (
        ("standard", 2, 3, 19, 3, False), ("lambda_outside", 1, 8, 32, 1, True), ("no_lambda", 1, 2, 17, 1, False),
    )  # fmt: skip
    for mode, heads, rank, length, gates, own_decay in cases:
        found = scan_errors(mode, heads=heads, rank=rank, length=length, gates=gates, own_decay=own_decay)
        errors |= {f"scan {mode} {name}": value for name, value in found.items()}
    for mode, own_decay, per_row in product(get_args(UpdateMode), (False, True), (False, True)):
        found = step_errors(mode, own_decay=own_decay, per_row=per_row)
        errors |= {f"step {mode} {own_decay} {per_row} {name}": value for name, value in found.items()}
    for scale in (1e-3, 1e-5):
        found = step_errors("standard", own_decay=True, per_row=False, rank=8, scale=scale)
        errors |= {f"scaled {scale} {name}": value for name, value in found.items()}
    errors |= {f"model {name}": value for name, value in model_errors().items()}
    triton_scan.CHUNK = LAUNCHED_CHUNK
    found = scan_errors("standard", heads=1, rank=2, length=LAUNCHED_CHUNK + 1, gates=2, own_decay=True, batch=1)
    errors |= {f"launched {name}": value for name, value in found.items()}
    errors["unguarded launches"] = float(not Guard.launches) + Guard.launches.count(False)
    print(json.dumps(errors))


if __name__ == "__main__":
    main()

"""Compare the Triton kernels with the definition, under Triton's interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backbone.ops.delta_rule import delta_rule, has_triton

pytest.importorskip("triton", reason="Triton has wheels for Linux on x86-64 only")


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    """Run all comparisons in a process that interprets kernels; gives the largest relative error of each."""
    program = Path(__file__).with_name("interpreted.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "part",
    [
        "positions", "predictions", "scan standard", "scan lambda_outside", "scan no_lambda", "step", "scaled",
        "launched", "model",
    ],
)  # fmt: skip
def test_kernels_give_what_the_definition_gives(errors: dict[str, float], part: str) -> None:
    """Reads, states, gradients, decode steps and a whole model agree to 1e-4 of the largest value."""
    compared = {name: value for name, value in errors.items() if name.startswith(part)}
    assert compared
    assert all(value < 1e-4 for value in compared.values()), compared


def test_kernels_are_launched_where_their_arguments_are(errors: dict[str, float]) -> None:
    """Every launch is under a guard that makes the tensors' device the current one."""
    assert errors["unguarded launches"] == 0


def test_triton_is_for_gpus() -> None:
    """On a CPU, without the interpreter, nothing is sent to Triton, nor is anything that is not float32."""
    assert not has_triton(torch.zeros(1))
    assert not has_triton(torch.zeros(1, dtype=torch.float64))


def test_gradients_of_states_at_positions_are_not_tritons() -> None:
    """What the kernels cannot do is refused, with the form that can."""
    q = torch.ones(1, 2, 1, 2, requires_grad=True)
    with pytest.raises(NotImplementedError, match="form='chunked'"):
        delta_rule(q, q, q, q, state_positions=torch.tensor([[1]]), form="triton")

"""Let both agents run a few turns alone, as `make bench` does for a hundred."""

from pathlib import Path

import pytest

from deltamem_agents import ChatDeltaMem
from examples.unattended import run_unattended, save_plot, summarize


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["coding", "data"])
def test_agents_run_unattended(agent: str, tmp_path: Path) -> None:
    """No turn fails, and every turn is measured and drawn."""
    turns = run_unattended(agent, ChatDeltaMem(max_tokens=32), 8, tmp_path)
    assert len(turns) == 8
    assert all(turn.cpu_seconds > 0 and turn.resident_bytes > 0 and turn.checkpoint_bytes > 0 for turn in turns)
    assert summarize(turns)["calls"] == sum(turn.calls for turn in turns)
    save_plot({agent: turns}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")

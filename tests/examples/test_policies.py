"""The policies of examples/policies, on a real archive."""

from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import pytest

from deltamem_agents import HybridMemory, MemoryStore
from deltamem_agents.archive.writes import NewRecord
from examples.policies.present_hook import NeedToKnow, recalled


def test_decisions_are_kept_and_a_stack_trace_for_an_hour(capsys: pytest.CaptureFixture[str]) -> None:
    """Of four messages two are kept: the decision without its token, the trace with an end."""
    import_module("examples.policies.decisions").main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    trace, decision = sorted(lines[:2], key=lambda line: "convention" in line)
    assert trace.startswith("kept until")
    assert "KeyError" in trace
    assert decision.startswith("kept for good, tags ['convention']: We decided to use ruff; the CI token is [redacted:")


@pytest.mark.parametrize(
    ("namespace", "shown", "hidden"), [("payroll", "$4,200", "[amount]"), ("support", "[amount]", "$4,200")]
)
def test_amounts_are_shown_to_payroll_only(namespace: str, shown: str, hidden: str) -> None:
    """The same record reads differently, and what holds no amount is left alone."""
    block = recalled((namespace,), "What does Ann earn a month?")
    assert f"Ann earns {shown} a month." in block
    assert hidden not in block
    assert "on holiday until Monday" in recalled((namespace,), "Until when is Ann on holiday?")


def test_what_is_older_than_a_quarter_is_withheld(tmp_path: Path) -> None:
    """The record stays in the archive, and is not shown to anybody."""
    old = NewRecord("The launch code name is heron.", created=datetime.now(UTC) - timedelta(days=91))
    with (
        MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store,
        HybridMemory(store, NeedToKnow(allowed={("payroll",)}), namespace=("payroll",)) as memory,
    ):
        store.records.add(("payroll",), old)
        block = memory.recall("What is the launch code name?")
    assert block.text is None
    assert [passage.verdict for passage in block.passages] == ["withheld"]


def test_a_quarantined_page_is_shown_once_it_is_approved(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither page is recalled at first; afterwards the approved one is, and the rejected one is gone for good."""
    approval = import_module("examples.policies.approval")
    approval.main()
    first, after = capsys.readouterr().out.split("recalled after ann has looked:")
    kept, rejected = approval.PAGES
    assert first == "recalled at first: None\n"
    shown, archive = after.split("archive: ")
    assert kept in shown
    assert rejected not in after
    assert archive.splitlines()[0] == str([kept])
    assert "log: approve by ann: our own page" in archive
    assert "log: reject by ann: runs what it downloads" in archive

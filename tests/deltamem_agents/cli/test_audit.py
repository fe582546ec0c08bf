"""The audit log and the quarantine from the command line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from deltamem_agents import MemoryStore
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.cli import main

NS = ("user", "ann")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Make an archive with a plain record and two in quarantine."""
    url = f"sqlite:///{tmp_path}/a.sqlite"
    with MemoryStore.from_url(url) as store:
        store.records.add(NS, NewRecord("ripe apples", "t", "1"))
        for number in ("2", "3"):
            store.records.add(
                NS, NewRecord(f"apples {number} [red]", "t", number, "tool", "web", tags=("quarantined",))
            )
    return url


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str) -> Run:
    """Run `deltamem` in this process on the test's archive; return exit status, stdout and stderr."""
    monkeypatch.setenv("DELTAMEM_ARCHIVE_DB", url)
    monkeypatch.delenv("DELTAMEM_ARCHIVE_INDEX", raising=False)
    monkeypatch.setenv("COLUMNS", "250")

    def run_one(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["deltamem", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run_one


def tamper(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE audit SET reason = 'another' WHERE seq = 2 AND namespace <> '[]'"))
    engine.dispose()


def test_the_quarantine_is_listed_approved_and_rejected(run: Run) -> None:
    """What is approved is found by a search; what is rejected is gone; the log says by whom and why."""
    _, out, _ = run("archive", "quarantined", "-n", "user/ann", "--json")
    rejected, approved = (record["id"] for record in json.loads(out))
    assert approved in run("archive", "quarantined", "-n", "user/ann", "--thread", "t")[1]
    assert "[red]" not in run("archive", "search", "apples", "-n", "user/ann")[1]
    status, out, _ = run("archive", "approve", approved[-8:], "-n", "user/ann", "--reason", "a known page", "--json")
    assert (status, json.loads(out)["tags"]) == (0, [])
    status, out, _ = run("archive", "reject", f"[m:{rejected[-8:]}]", "-n", "user/ann")
    assert (status, out) == (0, f"rejected {rejected}\n")
    assert "apples 2 [red]" in run("archive", "search", "apples", "-n", "user/ann")[1]
    assert json.loads(run("archive", "quarantined", "-n", "user/ann", "--json")[1]) == []
    entries = json.loads(run("audit", "list", "-n", "user/ann", "--limit", "2", "--json")[1])
    assert [(e["action"], e["actor"], e["reason"], e["record_id"]) for e in entries] == [
        ("reject", "command line", "rejected", rejected),
        ("approve", "command line", "a known page", approved),
    ]


def test_a_policy_keeps_what_is_rejected_in_quarantine(run: Run, tmp_path: Path) -> None:
    """With a file of policies that hold it, the rejection is logged and the record stays where it is."""
    (tmp_path / "policy.toml").write_text('[[policy]]\nuse = "hold"\ntags = ["quarantined"]\n')
    record = json.loads(run("archive", "quarantined", "-n", "user/ann", "--json")[1])[0]["id"]
    status, out, _ = run("archive", "reject", record, "-n", "user/ann", "--policy", str(tmp_path / "policy.toml"))
    assert (status, out) == (0, f"rejected {record}; the policy keeps it in quarantine\n")
    assert record in run("archive", "quarantined", "-n", "user/ann", "--json")[1]


@pytest.mark.parametrize("command", ["approve", "reject"])
def test_only_what_is_in_quarantine_can_be_decided(run: Run, command: str) -> None:
    """Another id, or a second answer, is an error in one line."""
    record = json.loads(run("archive", "list", "-n", "user/ann", "--json")[1])[-1]
    status, _, err = run("archive", command, record["id"], "-n", "user/ann")
    assert (status, "in quarantine" in err, err.count("\n")) == (1, True, 1)


def test_the_log_is_listed_and_chosen_from(run: Run) -> None:
    """By action and thread; an action that there is not is an error that lists those there are."""
    assert len(json.loads(run("audit", "list", "-n", "user/ann", "--action", "write", "--json")[1])) == 3
    assert json.loads(run("audit", "list", "-n", "user/ann", "--thread", "other", "--json")[1]) == []
    assert "3 entries" in run("audit", "list", "-n", "user/ann")[1]
    status, _, err = run("audit", "list", "-n", "user/ann", "--action", "wrote")
    assert (status, "write, recall" in err) == (1, True)


def test_verify_names_what_was_tampered_with(run: Run, url: str) -> None:
    """Exit status and JSON say whether the log is whole, and the table which entry is not."""
    status, out, _ = run("audit", "verify", "--json")
    assert (status, json.loads(out)["ok"], json.loads(out)["entries"]) == (0, True, 3)
    assert run("audit", "verify", "-n", "user/ann")[1] == "3 entries, 0 problems\n"
    tamper(url)
    status, out, _ = run("audit", "verify", "--json")
    report = json.loads(out)
    assert (status, report["ok"]) == (1, False)
    assert [(p["namespace"], p["kind"], p["seq"]) for p in report["problems"]] == [(["user", "ann"], "changed", 2)]
    assert "entry 2 is not as it was written" in run("audit", "verify")[1]


def test_verify_against_an_earlier_report_finds_a_rewritten_log(run: Run, url: str, tmp_path: Path) -> None:
    """A log that was thrown away and begun anew is whole in itself, and not the one that was noted."""
    noted = tmp_path / "noted.json"
    noted.write_text(run("audit", "verify", "--json")[1])
    assert run("audit", "verify", "--against", str(noted))[0] == 0
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit"))
        connection.execute(text("DELETE FROM audit_heads"))
    engine.dispose()
    assert run("audit", "verify")[0] == 0
    status, out, _ = run("audit", "verify", "--against", str(noted))
    assert (status, "which was noted, is gone" in out) == (1, True)
    noted.write_text("{}")
    status, _, err = run("audit", "verify", "--against", str(noted))
    assert (status, "verify --json" in err) == (1, True)


def test_export_writes_every_entry_oldest_first(run: Run, tmp_path: Path) -> None:
    """To a file or to standard output, of one namespace or of all."""
    _, out, _ = run("audit", "export")
    entries = [json.loads(line) for line in out.splitlines()]
    assert [entry["seq"] for entry in entries] == [1, 2, 3]
    assert "apples" not in out
    run("audit", "export", str(tmp_path / "log.jsonl"), "-n", "user/ann")
    assert (tmp_path / "log.jsonl").read_text() == out
    assert run("audit", "export", "-n", "nobody")[1] == ""


@pytest.mark.parametrize("command", [["audit", "list"], ["archive", "list"], ["archive", "quarantined"]])
def test_the_archive_has_the_name_that_it_has_in_forget(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """`--archive-db` names it in every command, `--db` where there is no other database."""
    monkeypatch.delenv("DELTAMEM_ARCHIVE_DB")
    for name in ("--db", "--archive-db"):
        status, out, _ = run(*command, "-n", "user/ann", name, url, "--json")
        assert (status, bool(json.loads(out))) == (0, True)

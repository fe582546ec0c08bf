"""What `deltamem doctor` finds in a healthy program and in broken ones."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from deltamem_agents import MemoryStore
from deltamem_agents.cli import main
from deltamem_agents.cli.diagnosis import Finding, diagnose
from deltamem_agents.evaluation import self_test
from deltamem_agents.evaluation.self_test import SelfTest, run_self_test
from deltamem_agents.settings import Settings

CHECKS = ["packages", "device", "model", "adapter", "threads", "archive", "index", "embeddings", "memory"]
HEALTHY = SelfTest(asked=4, answered=4, answered_without=0, leaked=0, seconds=1.0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, and test the memory itself in one test only."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DELTAMEM_{name.upper()}", raising=False)
    monkeypatch.setattr(self_test, "run_self_test", lambda: HEALTHY)
    return tmp_path


def found(**settings: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in diagnose(Settings(**settings))}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `deltamem doctor` in this process, and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["deltamem", "doctor", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_a_fresh_installation_is_healthy_and_nothing_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without any setting every check passes or says what could be added; no file appears."""
    assert run(monkeypatch, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert [finding["check"] for finding in report["findings"]] == CHECKS
    assert list(folder.iterdir()) == []
    assert run(monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line[0] in "✓!"] == CHECKS


def test_the_archive_to_check_can_be_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag names the archive's database, as on other commands."""
    assert run(monkeypatch, "--archive-db", "oracle://host") == 1
    assert "oracle" in capsys.readouterr().out


def test_the_memory_really_answers() -> None:
    """The self-test asks the bundled model for facts that have left its prompt, and most come back."""
    result = run_self_test()
    assert result.ok, result


@pytest.mark.parametrize(
    "result",
    [SelfTest(4, 2, 0, 0, 1.0), SelfTest(4, 4, 4, 0, 1.0), SelfTest(4, 4, 0, 1, 1.0), SelfTest(4, 0, 0, 0, 1.0)],
)
def test_a_memory_that_does_not_answer_or_was_helped_is_a_failure(
    result: SelfTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the facts are too few; answers without memory, or with the fact in the prompt, prove nothing."""
    monkeypatch.setattr(self_test, "run_self_test", lambda: result)
    finding = found()["memory"]
    assert finding.status == "failed"
    assert finding.advice is not None


@pytest.mark.parametrize(
    ("settings", "check", "said"),
    [
        ({"model": "nowhere", "adapter": "msw"}, "model", "nowhere"),
        ({"adapter": "nowhere"}, "adapter", "nowhere"),
        ({"db": "oracle://host"}, "threads", "oracle"),
        ({"db": "sqlite:///text.txt"}, "threads", "not a database"),
        ({"db": "sqlite:///no/such/folder.sqlite"}, "threads", "no/such"),
        ({"db": "postgresql://ann@127.0.0.1:1/a"}, "threads", "refused"),
        ({"archive_db": "oracle://host"}, "archive", "oracle"),
        ({"archive_db": "postgresql://ann@127.0.0.1:1/a"}, "archive", "refused"),
        ({"archive_db": "sqlite:///a.sqlite", "archive_index": "text.txt"}, "index", "text.txt"),
        ({"archive_embeddings": "nobody:model"}, "embeddings", "nobody"),
    ],
)
def test_what_is_broken_fails_and_says_what_to_do(
    folder: Path, settings: dict[str, str], check: str, said: str
) -> None:
    """The check that is concerned fails with what was found and advice; the others still run."""
    (folder / "text.txt").write_text("just text, and enough of it to be no empty database\n" * 40)
    with MemoryStore.from_url(f"sqlite:///{folder}/a.sqlite"):
        pass
    findings = found(**settings)
    assert list(findings) == CHECKS
    assert findings[check].status == "failed"
    assert said in findings[check].found
    assert findings[check].advice


def test_a_model_larger_than_the_free_memory_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the weights need is compared with what is free."""
    import backbone

    monkeypatch.setattr(backbone, "count_parameters", lambda model, revision: 10**15)
    finding = found()["model"]
    assert finding.status == "failed"
    assert ("--device cuda" in (finding.advice or "")) is torch.cuda.is_available()


def test_the_model_is_weighed_as_it_would_be_loaded() -> None:
    """The dtype and the device that are set count."""
    assert "as float32 need" in found()["model"].found
    finding = found(dtype="bfloat16", device="cpu")["model"]
    assert "as bfloat16 need" in finding.found
    assert finding.found.endswith("free on cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_torch_cannot_use_fails(device: str) -> None:
    """The check names it, and how to choose another."""
    finding = found(device=device)["device"]
    assert finding.status == "failed"
    assert "DELTAMEM_DEVICE" in (finding.advice or "")


def test_databases_that_are_there_are_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive with an index is counted; one that is out of step with its record fails."""
    from langchain_core.embeddings import DeterministicFakeEmbedding

    with MemoryStore.from_url(
        f"sqlite:///{folder}/a.sqlite", folder / "index", DeterministicFakeEmbedding(size=4)
    ) as store:
        store.put(("n",), "k", {"text": "x"})
    chosen = {"archive_db": f"sqlite:///{folder}/a.sqlite", "archive_index": str(folder / "index")}
    findings = found(**chosen)
    assert findings["archive"].found.endswith("0 records, 1 items")
    assert findings["index"].status == "ok"
    with MemoryStore.from_url(f"sqlite:///{folder}/b.sqlite") as store:
        store.put(("n",), "k", {"text": "x"})
    findings = found(**chosen | {"archive_db": f"sqlite:///{folder}/b.sqlite"})
    assert findings["index"].status == "failed"
    assert "rebuild" in (findings["index"].advice or "")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A requirement that is not installed, or too old, fails with the way to repair it, and the status is 1."""
    import importlib.metadata

    needed = ["no-such-package>=1", "rich>=10000", "nothing; extra == 'x'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: needed)
    assert run(monkeypatch, "--db", "memory://") == 1
    said = capsys.readouterr().out
    assert "✗ packages" in said
    assert "no-such-package is missing; rich is" in said
    assert "pip install" in said
    assert "nothing" not in said
    assert "! threads" in said

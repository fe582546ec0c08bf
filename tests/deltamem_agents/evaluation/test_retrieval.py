"""The retrieval measurement, on a small data set of LoCoMo's form."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from backbone import ConfigError
from deltamem_agents.archive.embeddings import Embedder
from deltamem_agents.cli import main
from deltamem_agents.evaluation.locomo import load_locomo
from deltamem_agents.evaluation.retrieval import run_retrieval

SAID = ["Which dog?", "The brown one.", "I bought a red bicycle.", "Nice weather today.", "My sister plays chess."]
ASKED: list[dict[str, Any]] = [
    {"question": "Who plays chess?", "evidence": ["D1:5"], "category": 4},
    {"question": "Which dog was it?", "evidence": ["D:1:01; D1:2"], "category": 1},
    {"question": "Which bicycle?", "evidence": ["D1:3"], "category": 5},
    {"question": "Nothing is said?", "evidence": [], "category": 3},
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Write two conversations with three questions each that name their evidence."""
    turns = [{"speaker": "Ann", "dia_id": f"D1:{n}", "text": text} for n, text in enumerate(SAID, 1)]
    said = {
        "session_1": turns,
        "session_1_date_time": "1 May",
        "session_2": [{**turns[0], "dia_id": "D2:1", "text": "Bye!"}],
    }
    path = tmp_path / "locomo.json"
    path.write_text(json.dumps([{"sample_id": name, "conversation": said, "qa": ASKED} for name in ("a", "b")]))
    return path


def test_the_data_set_is_read_with_its_irregular_ids(dataset: Path) -> None:
    """Evidence is found however its ids are written, and questions without any are left out."""
    conversation = load_locomo(dataset)[0]
    assert [turn.text for turn in conversation.turns][-2:] == ["Ann: My sister plays chess.", "Ann: Bye!"]
    assert [sorted(question.evidence) for question in conversation.questions] == [["D1:5"], ["D1:1", "D1:2"], ["D1:3"]]
    dataset.write_text('{"qa": 1}')
    with pytest.raises(ConfigError, match="not a LoCoMo file"):
        load_locomo(dataset)


def test_rows_are_shares_of_the_evidence_found(dataset: Path) -> None:
    """Words find what they name; a question about two turns needs its neighbour for all of them."""
    steps: list[tuple[int, int]] = []
    figures = run_retrieval(
        dataset, DeterministicFakeEmbedding(size=4), lambda done, total: steps.append((done, total))
    )
    assert steps == [(1, 2), (2, 2)]
    assert figures["questions"] == 6
    assert figures["rows"].keys() == {"langchain_chroma", "bm25", "bm25_neighbour", "vectors", "default", "ours"}
    assert figures["rows"]["bm25"] == {"n": 6, "frac@10": 1.0, "any@5": 1.0, "all@5": 1.0}
    assert figures["rows"]["langchain_chroma"]["frac@10"] == 1.0  # of six texts
    assert figures["rows"]["langchain_chroma"]["any@5"] < 1.0  # random vectors say nothing
    assert figures["categories"].keys() == {"single-hop", "multi-hop", "adversarial"}
    assert figures["categories"]["single-hop"]["ours"]["n"] == 2


def test_the_command_prints_json_and_a_table(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`deltamem eval retrieval` gives the same rows both ways."""
    fake = Embedder("p:m", DeterministicFakeEmbedding(size=4))
    monkeypatch.setattr("deltamem_agents.evaluation.retrieval.resolve_embeddings", lambda name: fake)
    printed = []
    for options in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["deltamem", "eval", "retrieval", "--dataset", str(dataset), *options])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        printed.append(capsys.readouterr().out)
    rows = json.loads(printed[0])["rows"]
    assert f"{rows['ours']['frac@10']:.3f}" in printed[1]
    assert "bm25_neighbour" in printed[1]

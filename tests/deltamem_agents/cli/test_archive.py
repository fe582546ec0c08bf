"""The archive from the command line."""

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from deltamem_agents import MemoryStore
from deltamem_agents.archive import rebuild
from deltamem_agents.archive.embeddings import Embedder
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.cli import main

NS = ("user", "ann")
MODEL = DeterministicFakeEmbedding(size=4)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an archive with two versions of a record, a message, an expiring record and an item."""
    folder = tmp_path_factory.mktemp("filled")
    with MemoryStore.from_url(f"sqlite:///{folder}/a.sqlite", folder / "index", MODEL) as store:
        first = store.records.add(NS, NewRecord("green [red] apples", "t", "1", tags=("x",)))
        store.records.update(NS, first.id, "ripe apples", expected_version=1)
        store.records.add(("other",), NewRecord("blue sky", created=datetime(2024, 1, 1, tzinfo=UTC), ttl=timedelta(1)))
        store.put(("notes",), "k", {"text": "naïve", "n": [1, None]}, ttl=60)
    return folder


@pytest.fixture
def url(filled: Path, tmp_path: Path) -> str:
    """Copy the archive for one test."""
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    return f"sqlite:///{tmp_path}/a.sqlite"


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run `deltamem archive` in this process on the test's archive; return exit status, stdout and stderr."""
    monkeypatch.setenv("DELTAMEM_ARCHIVE_DB", url)
    monkeypatch.delenv("DELTAMEM_ARCHIVE_INDEX", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")

    def run_one(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["deltamem", "archive", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run_one


def test_records_are_found_listed_and_shown(run: Callable[..., tuple[int, str, str]]) -> None:
    """`search`, `list` and `show` agree, as JSON and as tables that print brackets as they are."""
    _, out, _ = run("search", "apple", "--namespace", "user/ann", "--json")
    (found,) = json.loads(out)
    assert (found["text"], found["version"], found["tags"]) == ("ripe apples", 2, ["x"])
    _, listed, _ = run("list", "--namespace", '["user", "ann"]', "--json")
    assert [record["id"] for record in json.loads(listed)] == [found["id"]]
    _, shown, _ = run("show", found["supersedes"], "--namespace", "user/ann", "--json")
    assert json.loads(shown)["superseded_by"] == found["id"]
    assert "green [red] apples" in run("show", found["supersedes"], "--namespace", "user/ann")[1]
    assert "ripe apples" in run("list", "--namespace", "user/ann", "--thread", "t")[1]
    assert "ripe" not in run("list", "--namespace", "user/ann", "--thread", "u")[1]


def test_a_record_is_named_by_part_of_its_id(run: Callable[..., tuple[int, str, str]], url: str) -> None:
    """The end of an id, as in a citation, or its beginning is enough if no other record has it."""
    with MemoryStore.from_url(url) as store:
        ids = [store.records.add(("two",), NewRecord(text)).id for text in ("one", "two")]
    for name in (ids[0], ids[0][-8:], f"[m:{ids[0][-8:]}]", ids[0][:-2]):
        assert json.loads(run("show", name, "-n", "two", "--json")[1])["text"] == "one"
    assert "is part of 2 ids" in run("show", ids[0][:4], "-n", "two")[2]
    for name in (ids[0][-8:], "%%%%", ids[0][-3:]):
        assert f"holds no record '{name}'" in run("show", name, "-n", "user/ann")[2]


def test_expected_errors_are_one_line(run: Callable[..., tuple[int, str, str]]) -> None:
    """An unknown record, a namespace that is none and a missing index are said on stderr with status 1."""
    for arguments, reason in (
        (("show", "nothing", "--namespace", "user/ann"), "holds no record 'nothing'"),
        (("list", "--namespace", "[broken"), "a namespace is labels"),
        (("list", "--namespace", ""), "a namespace is a non-empty tuple"),
        (("rebuild",), "name the index to rebuild"),
        (("stats", "--db", "oracle://x"), "a database URL is"),
    ):
        status, out, err = run(*arguments)
        assert (status, out, len(err.splitlines())) == (1, "", 1)
        assert reason in err


def test_statistics_count_rows_and_bytes(run: Callable[..., tuple[int, str, str]]) -> None:
    """Versions, messages and items are counted apart, and the files are weighed."""
    _, out, _ = run("stats", "--index", "index", "--json")
    found = json.loads(out)
    counted = {name: found[name] for name in ("records", "versions", "messages", "items", "namespaces", "pending")}
    assert counted == {"records": 2, "versions": 3, "messages": 1, "items": 1, "namespaces": 3, "pending": 0}
    assert found["bytes_on_disk"] > 10_000
    assert found["index_bytes"] > 10_000
    assert "namespaces" in run("stats")[1]


def test_verify_and_rebuild(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`verify` says what is wrong and fails; `rebuild` makes it right, with the embeddings that are named."""
    status, out, _ = run("verify", "--index", "index", "--json")
    assert (status, json.loads(out)["ok"], json.loads(out)["vectors"]) == (0, True, 4)
    (database,) = (tmp_path / "index").glob("*/chroma.sqlite3")
    database.write_bytes(b"spoilt")
    status, out, _ = run("verify", "--index", "index", "--json")
    assert (status, json.loads(out)["ok"]) == (1, False)
    assert "set aside" in json.loads(out)["fault"]
    monkeypatch.setattr(rebuild, "resolve_embeddings", lambda name: Embedder(name or "minilm", MODEL))
    assert run("rebuild", "--index", "index", "--embeddings", "p:m") == (0, "4 vectors\n", "")
    status, out, err = run("rebuild", "--index", "index")
    assert (status, out) == (1, "")
    assert "was made by p:m: name the embeddings" in err
    assert run("rebuild", "--index", "index", "--embeddings", "minilm", "--json")[1] == '{"vectors": 4, "refused": 0}\n'
    assert run("rebuild", "--index", "index")[0] == 0
    status, out, _ = run("verify", "--index", "index")
    assert status == 0
    assert "missing" in out
    assert json.loads(run("verify", "--json")[1])["vectors"] == 0
    assert run("verify", "--index", "nowhere")[0] == 1


def test_export_and_import_make_an_exact_copy(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """The copy exports the same lines, is searched alike, and importing again adds nothing; the file is the owner's."""
    copy = f"sqlite:///{tmp_path}/copy.sqlite"
    status, said, _ = run("export", "all.jsonl", "--json")
    assert (status, json.loads(said)) == (0, {"records": 3, "messages": 1, "items": 1, "threads": 1})
    assert "exported" in run("export", "all.jsonl")[1]
    assert Path("all.jsonl").stat().st_mode & 0o777 == 0o600
    exported = Path("all.jsonl").read_text(encoding="utf-8")
    assert exported.count("\n") == 3 + 1 + 1 + 1
    counts = json.loads(run("import", "all.jsonl", "--db", copy, "--json")[1])
    assert counts == {"records": 3, "messages": 1, "items": 1, "threads": 1, "known": 0, "refused": 0}
    assert run("export", "--db", copy)[1] == run("export", "--db", copy, "--json")[1] == exported
    found = [json.loads(run("search", "apples", "-n", "user/ann", "--json", *more)[1]) for more in ((), ("--db", copy))]
    assert found[0] == found[1]
    assert "known" in run("import", "all.jsonl", "--db", copy)[1]
    assert run("export", "--db", copy)[1] == exported
    part = run("export", "--namespace", "other")[1]
    assert [json.loads(line)["text"] for line in part.splitlines()] == ["blue sky"]
    assert json.loads(run("export", "part.jsonl", "--namespace", "other", "--json")[1])["records"] == 1


def test_a_policy_file_chooses_what_is_imported(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """What it refuses is counted, and a file that is none is an error before anything is made."""
    run("export", "all.jsonl")
    copy = f"sqlite:///{tmp_path}/copy.sqlite"
    status, _, err = run("import", "all.jsonl", "--db", copy, "--policy", "none.toml")
    assert (status, "none.toml" in err, Path("copy.sqlite").exists()) == (1, True, False)
    Path("none.toml").write_text('[[policy]]\nuse = "roles"\narchive = []\n', encoding="utf-8")
    counts = json.loads(run("import", "all.jsonl", "--db", copy, "--policy", "none.toml", "--json")[1])
    assert counts == {"records": 0, "messages": 0, "items": 0, "threads": 1, "known": 0, "refused": 5}


def test_a_pipe_is_imported(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """What cannot be read twice is read once."""
    run("export", "all.jsonl")
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(Path("all.jsonl").read_bytes()))
    writer.start()
    counts = json.loads(run("import", "pipe", "--db", f"sqlite:///{tmp_path}/copy.sqlite", "--json")[1])
    writer.join()
    assert counts["records"] == 3


def test_a_spoilt_line_imports_nothing(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """The error names the line, and the lines before it are not stored."""
    run("export", "all.jsonl")
    lines = Path("all.jsonl").read_text(encoding="utf-8").splitlines()
    copy = f"sqlite:///{tmp_path}/copy.sqlite"
    nameless = [
        lines[1].replace('"text"', '"test"'),
        lines[1].replace("user", ""),
        lines[1].replace("green", "\\u0000"),
    ]
    for spoilt in ("{", "[]", '{"kind": "secret"}', *nameless):
        Path("bad.jsonl").write_text("\n".join([lines[0], spoilt]), encoding="utf-8")
        status, _, err = run("import", "bad.jsonl", "--db", copy)
        assert status == 1
        assert "line 2 is no record" in err
    assert json.loads(run("stats", "--db", copy, "--json")[1])["versions"] == 0

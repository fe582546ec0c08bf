"""The command line as a whole: examples, completion, colours, settings, mistakes."""

import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from deltamem_agents import MemoryStore, open_checkpointer
from deltamem_agents.archive import NewRecord
from deltamem_agents.cli import app, main

PROGRAM = [sys.executable, "-c", "from deltamem_agents.cli import main; main()"]
EXAMPLE = "Example: deltamem "


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each command that does something, with the words that call it."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from commands(child, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_an_example_that_the_command_takes(path: tuple[str, ...]) -> None:
    """Each command shows one call of itself, with options that it has."""
    text = f"{COMMANDS[path].help or ''}\n\n{COMMANDS[path].epilog or ''}\n\n"
    assert EXAMPLE in text, f"give {path} an epilog that begins so"
    words = shlex.split(text.partition(EXAMPLE)[2].partition("\n\n")[0])
    assert tuple(words[: len(path)]) == path
    arguments = words[len(path) : words.index(">") if ">" in words else None]
    try:
        COMMANDS[path].make_context("deltamem", arguments)
    except typer.BadParameter as error:
        if "does not exist" not in error.message:  # the example's file
            raise


def test_a_shell_completes_commands() -> None:
    """Bash asks as typer's script does, and gets the commands that begin so."""
    asked = {"_DELTAMEM_COMPLETE": "complete_bash", "COMP_WORDS": "deltamem ch", "COMP_CWORD": "1"}
    done = subprocess.run(PROGRAM, env=os.environ | asked, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["chat"]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `deltamem` in this process, in a folder with a few files; return exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in [name for name in os.environ if name.startswith("DELTAMEM_")]:
        monkeypatch.delenv(name)
    (tmp_path / "noise.bin").write_bytes(b"\xff\xfe\x00noise" * 100)
    (tmp_path / "text.txt").write_text("just text\n")
    (tmp_path / "empty").mkdir()
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite"):
        pass

    def run_one(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["deltamem", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run_one


def test_the_version_is_that_of_the_package(run: Run) -> None:
    """`--version` prints it alone."""
    assert run("--version")[:2] == (0, f"{version('deltamem-agents')}\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("caht", "caht"),
        ("chat --nope", "--nope"),
        ("eval recall --facts 0", "--facts"),
        ("eval recall --mode best", "--mode"),
        ("eval retrieval --dataset nowhere.json", "nowhere.json"),
        ("archive search", "QUESTION"),
        ("archive import nowhere.jsonl", "nowhere.jsonl"),
        ("agent coding --json", "--script"),
        ("--config nowhere.toml archive stats", "nowhere.toml"),
    ],
)
def test_a_wrong_call_is_status_2_and_names_what_is_wrong(run: Run, arguments: str, named: str) -> None:
    """What the command line itself refuses ends with 2, as in other programs."""
    status, out, err = run(*shlex.split(arguments))
    assert (status, out) == (2, "")
    assert named.lower() in err.lower()
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("archive stats --db oracle://host", "oracle"),
        ("archive stats --db sqlite:///noise.bin", "not a database"),
        ("archive stats --db sqlite:///empty", "empty (a folder)"),
        ("archive stats --db postgresql://ann:secret@127.0.0.1:1/a", "refused"),
        ("archive show 123 -n acme", "123"),
        ("archive show 123 -n ''", "label"),
        ("archive list -n '[1'", "[1"),
        ("archive list -n '[1]'", "label"),
        ("archive import noise.bin", "utf-8"),
        ("archive import text.txt", "line 1"),
        ("archive rebuild", "--index"),
        ("archive export nowhere/file.jsonl", "nowhere"),
        ("policy explain hello --policy nowhere.toml", "nowhere.toml"),
        ("policy explain hello --policy text.txt", ".txt"),
        ("policy test nowhere.toml", "nowhere.toml"),
        ("adapter inspect nowhere", "nowhere"),
        ("adapter inspect empty", "empty"),
        ("adapter inspect msw --model nowhere", "nowhere"),
        ("adapter convert nowhere target", "nowhere"),
        ("chat --db oracle://host", "oracle"),
        ("chat --db sqlite:///noise.bin", "not a database"),
        ("chat --db memory:// --adapter nowhere", "nowhere"),
        ("chat --db memory:// --device gpu", "gpu"),
        ("chat --db memory:// --dtype float8", "dtype, given by its option"),
        ("chat --db memory:// --window-tokens 1", "window_tokens"),
        ("chat --db memory:// --device cuda:99", "cuda:99"),
        ("chat --db memory:// --model empty --adapter empty", "empty"),
        ("eval retrieval --dataset text.txt", "text.txt"),
        ("eval recall --facts 99", "99"),
    ],
)
def test_a_mistake_is_status_1_and_one_line(run: Run, arguments: str, named: str) -> None:
    """What fails while a command runs costs one line that says what, without a traceback or a password."""
    status, out, err = run(*shlex.split(arguments))
    assert (status, out) == (1, "")
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("error: ")
    assert named in err
    assert "secret" not in err


READERS = {
    "DELTAMEM_ARCHIVE_DB": (
        "audit verify",
        "audit list -n a",
        "audit export",
        "archive list -n a",
        "archive search x -n a",
        "archive show 12345678 -n a",
        "archive stats",
        "archive verify",
        "archive rebuild --index vectors",
        "archive export",
        "archive quarantined -n a",
        "archive approve 12345678 -n a",
        "archive reject 12345678 -n a",
        "forget -n a --query x --db memory://",
    ),
    "DELTAMEM_DB": (
        "threads list",
        "threads export t",
        "threads fork t u",
        "threads rollback t 12345678 -n a",
        "threads delete t -n a",
        "thread show t",
        "forget -n a --query x",
    ),
}


@pytest.mark.parametrize(
    ("arguments", "variable"), [(command, variable) for variable, commands in READERS.items() for command in commands]
)
def test_a_database_that_is_only_read_is_not_made(
    run: Run, arguments: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was mistyped is an error with the place that was looked at, and no file appears."""
    monkeypatch.setenv(variable, "sqlite:///mistyped.sqlite")
    before = sorted(tmp_path.iterdir())
    status, out, err = run(*shlex.split(arguments))
    assert (status, out) == (1, "")
    assert f"there is no database {tmp_path}/mistyped.sqlite" in err
    assert variable in err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("arguments", ["threads list --db sqlite:///folder", "archive stats --db sqlite:///folder"])
def test_a_folder_is_no_database(run: Run, arguments: str, tmp_path: Path) -> None:
    """It is named as one, and nobody is told to change its mode."""
    (tmp_path / "folder").mkdir()
    status, _, err = run(*shlex.split(arguments))
    assert status == 1
    assert err.startswith(f"error: there is no database {tmp_path}/folder (a folder); name the one that is meant with")
    assert len(err.splitlines()) == 1


def test_who_has_no_threads_or_no_archive_can_say_so(run: Run) -> None:
    """For `forget`, memory:// stands for what never was; the error names it."""
    asked = ("forget", "-n", "a", "--query", "x", "--json")
    assert "memory:// if there is none" in run(*asked)[2]
    assert run(*asked, "--db", "memory://")[0] == 0
    assert run(*asked, "--db", "memory://", "--archive-db", "memory://")[0] == 0


def test_settings_that_do_not_go_together_are_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model itself refuses is said like any other mistake."""
    monkeypatch.setenv("DELTAMEM_WINDOW_TOKENS", "80")
    monkeypatch.setenv("DELTAMEM_KEEP_TOKENS", "100")
    for command in (("chat", "--db", "memory://"), ("forget", "-n", "a", "--query", "x", "--db", "memory://")):
        status, _, err = run(*command)
        assert (status, len(err.splitlines())) == (1, 1)
        assert "keep_tokens must be below window_tokens" in err


def test_settings_come_from_flag_variable_and_file_in_that_order(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each names an archive with another number of records; the nearest to the person wins."""
    for count, name in enumerate(("default", "file", "variable", "flag")):
        with MemoryStore.from_url(f"sqlite:///{tmp_path}/{name}.sqlite") as store:
            for number in range(count):
                store.put(("n",), str(number), {"text": "x"})
    named = '"items": {}'.format
    (tmp_path / "mine.toml").write_text('archive_db = "sqlite:///file.sqlite"')
    monkeypatch.setenv("DELTAMEM_ARCHIVE_DB", "sqlite:///default.sqlite")
    assert named(0) in run("--config", "mine.toml", "archive", "stats", "--json")[1]
    monkeypatch.delenv("DELTAMEM_ARCHIVE_DB")
    assert named(1) in run("--config", "mine.toml", "archive", "stats", "--json")[1]
    monkeypatch.setenv("DELTAMEM_ARCHIVE_DB", "sqlite:///variable.sqlite")
    assert named(2) in run("--config", "mine.toml", "archive", "stats", "--json")[1]
    assert named(3) in run("archive", "stats", "--json", "--db", "sqlite:///flag.sqlite")[1]
    (tmp_path / "deltamem.toml").write_text("archive = 1")
    assert "unknown key 'archive'" in run("archive", "stats")[2]


FAILING_TURN = """
from deltamem_agents.cli.events import print_event
print_event({"kind": "error", "text": "error: a turn of deltamem agent"})
raise SystemExit(1)
"""


def in_terminal(call: list[str], environment: dict[str, str]) -> tuple[int, bytes]:
    """Run a program whose output a person watches; return its exit status and all that it has written."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(call, env=environment, stderr=theirs, stdout=theirs) as process:
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 4096):
                said += piece
        except OSError:  # how Linux says that the other end has closed
            pass
    os.close(ours)
    return process.returncode, said


@pytest.mark.parametrize(
    "call", [[*PROGRAM, "policy", "test", "nowhere.toml"], [sys.executable, "-c", FAILING_TURN]], ids=["end", "turn"]
)
@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_are_for_terminals_that_want_them(call: list[str], no_color: str, coloured: bool) -> None:
    """A terminal gets an error in red, unless NO_COLOR is set; a pipe never does."""
    environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm-256color"}
    status, said = in_terminal(call, environment)
    assert status == 1
    assert (b"\x1b[31m" in said) is coloured
    piped = subprocess.run(call, env=environment, capture_output=True, check=False)
    assert b"\x1b[" not in piped.stderr


LINES = """
from deltamem_agents.cli.progress import errors_as_lines
with errors_as_lines():
    for number in range(20):
        print(number)
"""


@pytest.mark.parametrize("command", ["archive export", "archive list -n n --limit 40", "print"])
def test_a_pipe_that_closes_early_is_no_error(tmp_path: Path, command: str) -> None:
    """A program whose reader has gone says nothing and has status 0.

    The first is written as it comes, the second by rich, the third when the program ends.
    """
    url = f"sqlite:///{tmp_path}/a.sqlite"
    with MemoryStore.from_url(url) as store:
        for number in range(40):
            store.put(("n",), str(number), {"text": "x" * 8000})
            store.records.add(("n",), NewRecord("x" * 8000, thread="t", message_id=str(number)))
    call = [sys.executable, "-c", LINES] if command == "print" else [*PROGRAM, *shlex.split(command), "--db", url]
    script = f"{shlex.join(call)} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_table_never_cuts_names(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids and threads, which other commands take, stand whole in one line of an 80-column table; text is folded."""
    monkeypatch.setenv("COLUMNS", "80")
    thread = "coding-a-project-with-a-long-name-1f0a7c2e"
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store:
        record = store.records.add(("n",), NewRecord("word " * 30 + "z" * 100, thread=thread, message_id="m"))
    printed = run("archive", "list", "-n", "n")[1]
    assert thread in printed
    assert record.id in printed
    assert "…" not in printed
    assert printed.count("z") == 100


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("threads list --db sqlite:///threads.sqlite", "reading the threads"),
        ("archive search word -n n", "asking the archive"),
        ("forget -n n --query word --db memory://", "erasing"),
        ("agent coding --db oracle://host --script text.txt", "loading the model"),
    ],
)
def test_a_person_sees_that_something_goes_on(run: Run, tmp_path: Path, arguments: str, what: str) -> None:
    """What takes more than a second says so before its first result, in a terminal only."""
    with open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite"):
        pass
    call = [*PROGRAM, *shlex.split(arguments)]
    said = in_terminal(call, os.environ | {"TERM": "xterm-256color"})[1]
    assert f"{what} …".encode() in said
    assert what not in run(*shlex.split(arguments))[2]


def test_moving_an_archive_shows_how_far_it_is(run: Run, tmp_path: Path) -> None:
    """A person sees a bar while records go to a file and come back, and none among lines that go to the terminal."""
    url = f"sqlite:///{tmp_path}/archive.sqlite"
    with MemoryStore.from_url(url) as store:
        store.records.add_all(("n",), [NewRecord(f"fact {number}") for number in range(250)])
    environment = os.environ | {"TERM": "xterm-256color"}
    moved = {
        "exporting": [*PROGRAM, "archive", "export", "all.jsonl", "--db", url],
        "importing": [*PROGRAM, "archive", "import", "all.jsonl", "--db", f"sqlite:///{tmp_path}/copy.sqlite"],
    }
    for what, call in moved.items():
        status, said = in_terminal(call, environment)
        assert status == 0, said
        assert what.encode() in said
        assert "━".encode() in said
    shown = in_terminal([*PROGRAM, "archive", "export", "--db", url], environment)[1]
    assert shown.count(b"\n") == 250
    assert b"exporting" not in shown
    assert run("archive", "export", "again.jsonl", "--db", url)[2] == ""

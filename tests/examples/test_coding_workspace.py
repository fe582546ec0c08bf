"""Try to leave the coding assistant's workspace, by path, by link, by command and by size."""

import fcntl
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltamem_agents import ConfigError, HybridMemory
from examples.coding_assistant.tools import workspace_tools
from examples.coding_assistant.workspace import Limits, RefusedError, Workspace

SAMPLE = Path(__file__).parents[2] / "examples" / "coding_assistant" / "sample_project"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Copy the sample project, with a file beside it that nobody may touch."""
    (tmp_path / "secret.txt").write_text("the secret", encoding="utf-8")
    return Path(shutil.copytree(SAMPLE, tmp_path / "project"))


@pytest.fixture
def space(root: Path) -> Workspace:
    """Return the workspace, with small limits."""
    return Workspace(root, limits=Limits(result_characters=400, output_characters=400, seconds=20))


def python(root: Path, code: str, **limits: float) -> Workspace:
    """Return a workspace whose only command runs `code`."""
    (root / "script.py").write_text(code, encoding="utf-8")
    command = f"{sys.executable} script.py"
    return Workspace(root, [command], Limits(**limits))  # type: ignore[arg-type] # numbers


def run_script(space: Workspace) -> str:
    return space.run(next(iter(space.commands)))


OUTSIDE = ["../secret.txt", "/etc/hostname", "app/../../secret.txt", "link.txt", "up/secret.txt", "chain.txt"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_path_leaves_the_workspace(space: Workspace, name: str) -> None:
    """Dots, absolute paths, links to files and to folders, and links to links are refused, read and written."""
    (space.root / "link.txt").symlink_to(space.root.parent / "secret.txt")
    (space.root / "up").symlink_to(space.root.parent)
    (space.root / "chain.txt").symlink_to("link.txt")
    with pytest.raises(RefusedError, match="outside"):
        space.read(name)
    with pytest.raises(RefusedError, match="outside"):
        space.write(name, "changed")
    with pytest.raises(RefusedError):
        space.list(name)
    assert "outside" in space.preview(name, "changed")
    assert (space.root.parent / "secret.txt").read_text(encoding="utf-8") == "the secret"


@settings(deadline=None)
@given(parts=st.lists(st.sampled_from(["..", ".", "app", "~", "x\0", "a" * 300, "", "/"]), min_size=1, max_size=6))
def test_whatever_a_path_is_made_of_it_stays_inside(parts: list[str]) -> None:
    """A path is refused, or what is read lies in the workspace."""
    space = Workspace(SAMPLE)
    name = "/".join(parts)
    try:
        listed = space.list(name)
    except RefusedError:
        return
    except OSError as error:
        assert "too long" in str(error)  # noqa: PT017 - either outcome is fine
        return
    assert (SAMPLE / name).resolve().is_relative_to(SAMPLE)
    assert "test_shopping.py" in listed or "parser.py" in listed


def test_search_does_not_follow_links(space: Workspace) -> None:
    """What lies outside is not found by way of a link, and what lies inside is named with its line."""
    (space.root / "up").symlink_to(space.root.parent)
    (space.root / "link.txt").symlink_to(space.root.parent / "secret.txt")
    assert space.search("the secret") == "nothing found"
    assert space.search("def report") == "app/report.py:10: def report(items: list[Item]) -> str:"
    with pytest.raises(RefusedError):
        space.search(" ")


def test_a_link_that_takes_the_place_of_a_file_is_not_opened(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the check and the opening somebody may swap a file for a link."""
    inside = space.root / "README.md"
    monkeypatch.setattr(space, "_file", lambda _: inside)
    inside.unlink()
    inside.symlink_to(space.root.parent / "secret.txt")
    with pytest.raises(OSError, match="symbolic links"):
        space.read("README.md")


def test_what_is_no_text_is_neither_read_nor_found_nor_overwritten(space: Workspace) -> None:
    """A file with NUL at its beginning is a database or a picture; replacement characters would say nothing of it."""
    (space.root / "picture.png").write_bytes(b"PNG\0the needle")
    (space.root / "late.txt").write_bytes(b"x" * 2_000 + b"\0\nthe needle")
    assert space.search("the needle").splitlines() == [
        "not searched: 1 no text (picture.png)",
        "late.txt:2: the needle",
    ]
    for refused in (lambda: space.read("picture.png"), lambda: space.write("picture.png", "x")):
        with pytest.raises(RefusedError, match="no text file"):
            refused()
    assert "no text file" in space.preview("picture.png", "x")
    assert (space.root / "picture.png").read_bytes() == b"PNG\0the needle"


@pytest.mark.parametrize(
    "name",
    [
        "threads.sqlite",
        "threads.sqlite-wal",
        "threads.sqlite-shm",
        "vectors/a/data.bin",
        "link",
        "Vectors/../vectors/a/data.bin",
    ],
)
def test_the_agents_own_databases_are_not_its_business(root: Path, name: str) -> None:
    """What was said elsewhere lies there, and a write would destroy it."""
    for path in ("threads.sqlite", "threads.sqlite-wal", "threads.sqlite-shm", "vectors/a/data.bin", "Vectors/x"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("the needle", encoding="utf-8")
    (root / "link").symlink_to("threads.sqlite")
    space = Workspace(root, private=[root / "threads.sqlite", root / "vectors"])
    assert space.search("the needle") == "Vectors/x:1: the needle"
    for refused in (lambda: space.read(name), lambda: space.write(name, "x")):
        with pytest.raises(RefusedError, match="own memory"):
            refused()
    assert "own memory" in space.preview(name, "x")
    with pytest.raises(RefusedError, match="own memory"):
        space.list("vectors")


def test_a_pipe_is_refused_at_once(space: Workspace) -> None:
    """A file that would block is not opened."""
    os.mkfifo(space.root / "pipe")
    with pytest.raises(RefusedError, match="no file"):
        space.read("pipe")
    with pytest.raises(OSError, match="No such device"):
        space.write("pipe", "x")


def test_reading_goes_on_where_it_was_cut(space: Workspace) -> None:
    """A long file comes in pieces that say where the next one begins, and together are the file."""
    text = "".join(f"line {number} of a long file\n" for number in range(100))
    (space.root / "long.txt").write_text(text, encoding="utf-8")
    read, name = "", "long.txt"
    while name:
        piece = space.read(name)
        assert len(piece) <= 450
        body, _, name = piece.partition("[…] goes on at ")
        read += body
    assert read == text


def test_large_and_unusual_files(space: Workspace) -> None:
    """A file above the limit is refused, one without line ends is cut, and an empty one says so."""
    small = Workspace(space.root, limits=Limits(result_characters=400, file_bytes=1_000))
    (space.root / "big.txt").write_text("x" * 1_001, encoding="utf-8")
    with pytest.raises(RefusedError, match="larger than"):
        small.read("big.txt")
    assert small.search("xxx").splitlines()[-1] == "nothing found"
    assert "1 larger than 1,000 bytes (big.txt)" in small.search("xxx")
    with pytest.raises(RefusedError, match="at most"):
        small.write("new.txt", "x" * 1_001)
    assert space.read("big.txt") == "x" * 400 + "[…]"
    space.write("empty.txt", "")
    assert space.read("empty.txt") == "the file is empty"


def test_a_file_is_written_as_given_and_the_preview_is_a_diff(space: Workspace) -> None:
    """New folders are made; the preview shows the lines that change."""
    assert space.preview("data/config.csv", "name").splitlines()[-2:] == ["-price", "+name"]
    assert space.write("data/config.csv", "name") == "wrote 4 characters"
    assert space.write("docs/new/notes.md", "é\n") == "wrote 2 characters"
    assert (space.root / "docs/new/notes.md").read_text(encoding="utf-8") == "é\n"
    assert space.preview("data/config.csv", "name") == "data/config.csv: no line changes"


def test_a_preview_hides_nothing(space: Workspace) -> None:
    """What would erase, overwrite or reorder a line on a terminal is escaped, in the name as well."""
    shown = space.preview("a\n+++ b.py", "import os\nos.system('x')\x1b[1A\x1b[2K\rpass\n# \u202eok\x9b1A\x85\u2028")
    assert shown.splitlines()[3:] == [
        "+import os", r"+os.system('x')\x1b[1A\x1b[2K\rpass", r"+# \u202eok\x9b1A\x85\u2028"
    ]  # fmt: skip
    assert shown.splitlines()[:2] == [r"--- a\n+++ b.py now", r"+++ a\n+++ b.py then"]
    (space.root / "unix.txt").write_bytes(b"a\nb\n")
    assert space.preview("unix.txt", "a\r\nb\n").splitlines()[3:] == ["-a", r"+a\r", " b"]


@pytest.mark.parametrize("name", [".git/hooks/pre-commit", ".GIT/config", ".", "app"])
def test_folders_and_the_repository_itself_are_not_written(space: Workspace, name: str) -> None:
    """Hooks would run code that nobody looked at."""
    with pytest.raises(RefusedError):
        space.write(name, "x")


@pytest.mark.parametrize("command", ["make test; ls", "make clean", "", "sh -c ls", "make test && ls", "ls", "make"])
def test_other_commands_are_refused(space: Workspace, command: str) -> None:
    """A command that is not listed word for word does not run."""
    with pytest.raises(RefusedError, match="is not one of: make test"):
        space.run(command)


def test_the_sample_projects_test_fails_until_it_is_repaired(space: Workspace) -> None:
    """The end of the output is kept, with the exit code before it."""
    failed = space.run(" make   test ")
    assert failed.startswith("exit code 2\n[…]\n")
    assert "AssertionError: 'milk bread apple' != 'apple bread milk'" in failed
    assert len(failed) <= 420
    space.write("data/config.csv", "name")
    assert space.run("make test").endswith("OK")
    assert not list(space.root.rglob("__pycache__"))


def test_a_command_sees_neither_keys_nor_input(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment only PATH and HOME go along, and standard input is empty."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    space = python(root, "import os, sys; print(sorted(os.environ), repr(sys.stdin.read()))")
    printed = run_script(space)
    assert "OPENAI" not in printed
    assert "'HOME'" in printed  # without it `go` finds no cache, and fails
    assert "'PATH'" in printed
    assert printed.endswith("''")


def test_a_command_that_hangs_is_stopped_with_its_children(root: Path) -> None:
    """When the time is up, nothing that the command has started goes on: the lock that they share is free again."""
    code = (
        "import fcntl, subprocess, sys, time\n"
        "lock = open('lock', 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], pass_fds=[lock.fileno()])\n"
        "print('begun', flush=True)\n"
        "time.sleep(600)\n"
    )
    assert run_script(python(root, code, seconds=4)) == "stopped after 4 seconds\nbegun"
    with (root / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_endless_output_is_cut(root: Path) -> None:
    """Only the end of much output is kept."""
    space = python(root, "print('x' * 3_000_000); print('the end')", output_characters=200)
    printed = run_script(space)
    assert printed.startswith("[…]\n")
    assert printed.endswith("the end")
    assert len(printed) <= 205


def test_a_program_that_is_not_there_is_named(root: Path) -> None:
    """An allowed command whose program is not installed is no error of the agent's."""
    with pytest.raises(RefusedError, match="no program 'cargoless'"):
        Workspace(root, ["cargoless test"]).run("cargoless test")


OUTPUT = "exit code 1\nF.\n\nFAIL: test_7\n\nFAILED (failures=1)\n"


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({}, OUTPUT),
        ({"shown_lines": 2}, "exit code 1\nFAIL: test_7\nFAILED (failures=1)"),
        ({"shown_lines": 9}, "exit code 1\nF.\nFAIL: test_7\nFAILED (failures=1)"),
        ({"result_characters": 11}, "exit code 1\n[…]failures=1)"),
    ],
)
def test_a_small_window_is_shown_the_end(root: Path, limits: dict[str, int], shown: str) -> None:
    """The exit code stays, and of the rest the last lines or characters."""
    assert Workspace(root, limits=Limits(**limits)).shown(OUTPUT) == shown


def test_a_tool_answers_with_the_refusal(space: Workspace, memory: HybridMemory) -> None:
    """The model reads why something was not done, and can go on."""
    tools = {tool.name: tool for tool in workspace_tools(space, memory)}
    assert tools["read_file"].invoke({"path": "../secret.txt"}).startswith("refused: ")
    assert tools["read_file"].invoke({"path": "data/config.csv"}) == "price\n\n(data/config.csv)"
    assert tools["list_files"].invoke({"folder": "app"}) == "__init__.py\nparser.py\nreport.py"
    assert tools["list_files"].invoke({"folder": "a" * 300}).startswith("refused: ")


def test_a_file_that_cannot_be_read_is_skipped_and_named(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search goes on without it, and says so."""
    (space.root / "app" / "locked.py").write_text("needle", encoding="utf-8")
    (space.root / "notes.txt").write_text("needle", encoding="utf-8")
    real = os.open

    def refusing(path: Path, *arguments: int) -> int:  # the tests may run as root, whom no mode keeps out
        if path.name == "locked.py":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", refusing)
    assert space.search("needle").splitlines() == [
        "not searched: 1 cannot be read (app/locked.py)",
        "notes.txt:1: needle",
    ]


def test_a_folder_that_cannot_be_listed_is_named(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in there cannot be counted; that there is something is said."""
    real = os.scandir

    def refusing(path: str) -> Any:  # as above
        if str(path).endswith("/app"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for number in range(5):
        (space.root / f"{number}.bin").write_bytes(b"\0")
    assert space.search("def report").splitlines() == [
        "not searched: 5 no text (0.bin, 1.bin, 2.bin, …); 1 cannot be read (app/)",
        "nothing found",
    ]


@pytest.mark.parametrize("command", ["make 'check", "", "  "])
def test_a_command_that_cannot_be_allowed_is_one_error(command: str) -> None:
    """Unbalanced quotes and an empty line are the user's mistake."""
    with pytest.raises(ConfigError, match="allowed"):
        Workspace(SAMPLE, [command])

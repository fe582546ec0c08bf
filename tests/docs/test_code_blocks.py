"""Run the code blocks of the READMEs and of docs/; where one cannot run, check the names it uses."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from deltamem_agents.cli import app
from deltamem_agents.settings import Settings, use_settings_file

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
# A sentence in italics straight above a block tells the reader, and this test, why it is not run.
BLOCK = re.compile(r"(?:^\*Not run by the tests: ([^*]+)\.\*\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What the pages call their Postgres; the tests start one and put its address there.
POSTGRES = "postgresql://app@localhost/agents"
OURS = {"backbone", "deltamem_agents"}


class Block(NamedTuple):
    """Hold one block: where it stands, why it is not run ("" if it is), its language and its text."""

    place: str
    reason: str
    language: str
    text: str

    @property
    def program(self) -> str:
        """Give the Python in the block: all of it, or what a swap leaves if its unchanged lines are there too."""
        if self.language == "python":
            return self.text
        lines = self.text.splitlines() if self.language == "diff" else []
        whole = any(line.startswith(" ") for line in lines)
        return "\n".join(line[1:] for line in lines if whole and not line.startswith("-"))


def blocks_of(page: Path) -> list[Block]:
    place = page.relative_to(ROOT)
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(f"{place}, block {number}", *parts) for number, parts in enumerate(found, start=1)]


BLOCKS = {page: blocks_of(page) for page in PAGES}
EVERY_BLOCK = [block for page in PAGES for block in BLOCKS[page]]


def pages_with_programs(*, run: bool) -> list[object]:
    """Return the pages that have Python which is run, or Python which is not, as test parameters."""
    chosen = [page for page in PAGES if any(block.program and run == (not block.reason) for block in BLOCKS[page])]
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in chosen]


def test_every_block_has_a_language_that_is_checked() -> None:
    """A block is Python, a swap of lines, shell commands, a file, or text: formulas, drawings and what is printed."""
    assert {block.language for block in EVERY_BLOCK} <= {"python", "diff", "sh", "toml", "json", "text"}


def is_program(text: str) -> bool:
    """Say whether a text is Python that does something, and not a formula that happens to read like it."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Import | ast.ImportFrom | ast.Call) for node in ast.walk(tree))


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block.place) for block in EVERY_BLOCK if block.language == "text"]
)
def test_what_could_be_checked_is_no_text(block: Block) -> None:
    """Python, TOML, JSON or a call of `deltamem` is marked as what it is, so that it is tried."""
    assert not is_program(block.text)
    assert not block.text.startswith(("{", "[[", "deltamem ", "# deltamem.toml"))


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block.place) for block in EVERY_BLOCK if block.language in {"toml", "json"}]
)
def test_a_file_that_a_page_shows_can_be_read(block: Block, tmp_path: Path) -> None:
    """JSON is read, TOML is taken as policies whose examples hold, or else as settings."""
    if block.language == "json":
        assert json.loads(block.text)
        return
    file = tmp_path / "file.toml"
    file.write_text(block.text, encoding="utf-8")
    if "policy" in tomllib.loads(block.text):
        done = CliRunner().invoke(app, ["policy", "test", str(file)])
        assert done.exit_code == 0, done.output
    else:
        with use_settings_file(file):
            assert Settings().model_fields_set


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
@pytest.mark.parametrize("page", pages_with_programs(run=True))
def test_the_programs_of_a_page_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A reader can paste each block into a file, one folder for the page, and run it."""
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS[page]:
        if block.program and not block.reason:
            program = block.program
            if POSTGRES in program:
                program = program.replace(POSTGRES, request.getfixturevalue("postgres_server"))
            exec(compile(program, block.place, "exec"), {"__name__": "__main__"})  # noqa: S102 - the repository's pages


@pytest.mark.parametrize("page", pages_with_programs(run=False))
def test_a_program_that_is_not_run_uses_names_that_exist(page: Path) -> None:
    """What a block imports from this project is there, and the block is Python."""
    for block in BLOCKS[page]:
        if block.program and block.reason:
            for node in ast.walk(ast.parse(block.program, block.place)):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in OURS:
                    module = import_module(node.module)
                    assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block.place) for block in EVERY_BLOCK if block.language == "sh"]
)
def test_a_shell_block_names_what_exists(block: Block) -> None:
    """Each line is a target, a command of `deltamem`, a module, an extra or a tool, with options that it has."""
    for line in block.text.splitlines():
        program, *words = line.partition(" #")[0].split() or ["#"]
        if not program.startswith("#"):
            CHECKS[program](words)


def check_make(words: list[str]) -> None:
    subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True)


def check_deltamem(words: list[str]) -> None:
    command = typer.main.get_command(app)
    context = typer.Context(command)
    while words and hasattr(command, "get_command") and (inner := command.get_command(context, words[0])):
        command, words = inner, words[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert [word for word in words if word.startswith("--") and word.partition("=")[0] not in options] == []
    assert not hasattr(command, "get_command"), f"{command.name} is a group, and {words} is no command of it"


def check_python(words: list[str]) -> None:
    if words[0] == "-m":
        assert find_spec(words[1]) is not None
        asked = [word for word in words[2:] if word.startswith("--")]
        assert [word for word in asked if word not in module_help(words[1])] == []
    else:
        assert (ROOT / words[0]).is_file()


@cache
def module_help(module: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert not [word for word in words if "deltamem" in word], "the project is on no package index: install its clone"
    named = re.findall(r"\.\[([\w,]+)\]", " ".join(words))
    assert {extra for group in named for extra in group.split(",")} <= set(extras)


def check_nothing(_words: list[str]) -> None:
    """Accept a program that is not this project's."""


CHECKS = {
    "make": check_make,
    "deltamem": check_deltamem,
    "python": check_python,
    "pip": check_pip,
    "langgraph": check_nothing,
    "uvicorn": check_nothing,
    "curl": check_nothing,
    "export": check_nothing,
    "source": check_nothing,
    "git": check_nothing,
    "openssl": check_nothing,
    "cd": check_nothing,
    "createdb": check_nothing,
}

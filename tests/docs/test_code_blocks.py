"""Run every code block of the README and of docs/."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [
    (page, language, code) for page in PAGES for language, code in BLOCK.findall(page.read_text(encoding="utf-8"))
]


def blocks(language: str) -> list[object]:
    """Return the blocks of one language as test parameters named by page and place."""
    chosen = [(page, code) for page, found, code in BLOCKS if found == language]
    return [pytest.param(code, id=f"{page.name}-{number}") for number, (page, code) in enumerate(chosen)]


def test_every_block_has_a_language_that_is_checked() -> None:
    """A block is Python, shell commands, or text that is not run."""
    assert {language for _, language, _ in BLOCKS} <= {"python", "sh", "text"}


@pytest.mark.parametrize("code", blocks("python"))
def test_python_block_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader can paste the block into a file and run it."""
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "block", "exec"), {"__name__": "__main__"})  # noqa: S102 - the repository's own pages


@pytest.mark.parametrize("code", blocks("sh"))
def test_shell_block_names_targets_and_options_that_exist(code: str) -> None:
    """Each line is a target of the Makefile, or a command of `deltamem` with options that it has."""
    for line in code.splitlines():
        program, *words = line.partition("#")[0].split()
        if program == "make":
            subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True)
        else:
            assert program == "deltamem"
            commands = words[: 1 + (words[0] in {"eval", "archive", "adapter", "policy"})]
            help_text = deltamem_help(commands)
            assert [word for word in words if word.startswith("--") and word not in help_text] == []


def deltamem_help(commands: list[str]) -> str:
    """Return the help of a command as plain text."""
    code = "from deltamem_agents.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *commands, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200"},
    )
    return done.stdout

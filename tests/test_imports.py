"""Check that importing the packages, and asking the command line for help, stays cheap."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "chromadb",
    "langchain",
    "langchain_core",
    "langgraph",
    "numpy",
    "presidio_analyzer",
    "spacy",
    "sqlalchemy",
    "torch",
    "transformers",
}
PRINT_MODULES = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{PRINT_MODULES}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "package", ["backbone", "deltamem_agents", "deltamem_agents.archive", "deltamem_agents.policy"]
)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    """A bare import costs no torch, no transformers and no langchain."""
    assert not loaded_by(f"import {package}") & HEAVY


def test_a_lazy_name_loads_what_it_needs() -> None:
    """Using a name is what loads torch, so that the check above does not pass for want of content."""
    assert "torch" in loaded_by("from backbone import MemoryState")
    assert "langchain_core" in loaded_by("from deltamem_agents import ChatDeltaMem")


def test_a_rule_loads_what_it_needs_when_it_is_made() -> None:
    """A chain gives a hook a second: loading LangChain in the first one would refuse the first message."""
    code = "from deltamem_agents.policy import PersonalData, Secrets\nSecrets()\n"
    assert "langchain" not in loaded_by(code)
    assert "langchain" in loaded_by(code + "PersonalData()")


def test_a_database_that_cannot_be_opened_is_refused_before_the_model_loads() -> None:
    """A mistake in `--db` is said at once, and not after the seconds that the model's libraries take."""
    code = (
        "import sys\n"
        "from deltamem_agents.cli import main\n"
        "sys.argv = ['deltamem', 'chat', '--db', 'oracle://host']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == 1"
    )
    assert not loaded_by(code) & {"torch", "transformers"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["chat", "--help"], ["eval", "recall", "--help"], ["policy", "test", "--help"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """Help is printed by typer and rich alone."""
    code = (
        "import sys\n"
        f"sys.argv = ['deltamem', *{arguments!r}]\n"
        "from deltamem_agents.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code"
    )
    assert not loaded_by(code) & HEAVY

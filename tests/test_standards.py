"""Check the sizes and docstrings that the project promises itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("backbone", "deltamem_agents", "examples")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_FILE_LINES = 250
MAX_FUNCTION_LINES = 40
MAX_TEST_FILE_LINES = 500


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the length of a function without its docstring, from `def` to its last line."""
    documented = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    inside = 0 if documented is None else (documented.end_lineno or 0) - documented.lineno + 1
    return (function.end_lineno or 0) - function.lineno + 1 - inside


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_source_files_and_functions_are_short(path: Path) -> None:
    """A source file has at most 250 lines, a function at most 40."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    assert [f.name for f in functions(path) if code_lines(f) > MAX_FUNCTION_LINES] == []


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_test_files_are_short_and_every_test_says_what_it_expects(path: Path) -> None:
    """A test file has at most 500 lines, and each test a docstring."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_TEST_FILE_LINES
    tests = [function for function in functions(path) if function.name.startswith("test_")]
    assert [test.name for test in tests if not ast.get_docstring(test)] == []


def test_no_package_files_under_tests() -> None:
    """An `__init__.py` under tests/ would hide the packages of the same names."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []

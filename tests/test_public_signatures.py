"""Pin how public callables are called, and which options the commands have, against files under `tests/public`."""

import enum
import inspect
from collections.abc import Iterable, Iterator
from difflib import unified_diff
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from backbone import ConfigError
from deltamem_agents.cli import app

PACKAGES = ("backbone", "deltamem_agents", "deltamem_agents.archive", "deltamem_agents.policy")
KEPT = Path(__file__).parent / "public"
HOW = "If users may notice, say so in CHANGELOG.md (docs/deprecation.md); then: python -m tests.test_public_signatures"
OURS = ("backbone", "deltamem_agents")


def default(value: Any) -> str:
    """Write a default if its text is the same everywhere; of any other value, that there is one."""
    if isinstance(value, enum.Enum):
        return str(value)
    return repr(value) if value is None or isinstance(value, str | int | float | tuple) else "..."


def parameters(callable_: Any) -> str:
    """Write names, kinds and defaults of parameters; types are left to the type checker."""
    shown = [
        one.replace(annotation=one.empty, default=one.empty if one.default is one.empty else Shown(one.default))
        for one in inspect.signature(callable_).parameters.values()
        if not one.name.startswith("_")
    ]
    return str(inspect.Signature(shown))


class Shown:
    """A default that is written by `default`."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return default(self.value)


def ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in OURS


def fields(kind: type[BaseModel]) -> str:
    """Write the fields that classes of these packages declare, as parameters."""
    declared = {key for one in kind.__mro__ if ours(one) for key in one.__annotations__}
    told = [
        key if field.is_required() else f"{key}={'...' if field.default_factory else default(field.default)}"
        for key, field in kind.model_fields.items()
        if key in declared
    ]
    return f"(*, {', '.join(told)})" if told else "()"


def members(kind: type) -> Iterator[str]:
    """Yield public properties, and methods with parameters; what a base of another package has is its own affair."""
    found: dict[str, Any] = {}
    for one in reversed(kind.__mro__):
        if ours(one):
            found |= {name: value for name, value in vars(one).items() if not name.startswith(("_", "model_"))}
    for name, value in sorted(found.items()):
        if isinstance(value, property):
            yield f".{name}"
        elif isinstance(value, staticmethod | classmethod) or inspect.isfunction(value):
            yield f".{name}{parameters(getattr(kind, name))}"


def class_lines(kind: type) -> list[str]:
    """Return how a class is made, or what it is, and its members, a line each."""
    if issubclass(kind, Exception):
        return [": " + ", ".join(base.__name__ for base in kind.__bases__)]
    if issubclass(kind, enum.Enum):
        return [": " + ", ".join(f"{one.name}={one.value!r}" for one in kind)]
    if issubclass(kind, dict):
        return [": " + ", ".join(sorted(kind.__annotations__))]
    if issubclass(kind, BaseModel):
        return [fields(kind), *members(kind)]
    return [*([] if getattr(kind, "_is_protocol", False) else [parameters(kind)]), *members(kind)]


def public_lines() -> Iterator[str]:
    """Yield a line for everything that can be called by a public name."""
    for package in PACKAGES:
        module = import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            for line in class_lines(value) if inspect.isclass(value) else [parameters(value)]:
                yield f"{package}.{name}{line}"


def command_lines(command: Any = None, path: str = "deltamem") -> Iterator[str]:
    """Yield a line for each option and argument of each command."""
    command = command or typer.main.get_command(app)
    yield path
    for one in command.params:
        if (one.name or "").endswith("_completion"):  # typer's own
            continue
        many = " (repeatable)" if getattr(one, "multiple", False) else ""
        needed = " (required)" if one.required else f" = {default(one.default)}"
        yield f"{path} {'/'.join((*one.opts, *one.secondary_opts))}{needed}{many}"
    for name, child in getattr(command, "commands", {}).items():
        yield from command_lines(child, f"{path} {name}")


SNAPSHOTS = {"api.txt": public_lines, "commands.txt": command_lines}


def text_of(lines: Iterable[str]) -> str:
    """Return lines as a file has them."""
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_what_users_call_is_exactly_this(name: str) -> None:
    """Names, kinds and defaults of parameters, bases of errors, and options change only together with the file."""
    then, now = (KEPT / name).read_text(encoding="utf-8"), text_of(SNAPSHOTS[name]())
    changed = "".join(unified_diff(then.splitlines(True), now.splitlines(True), name, "now", n=0))
    assert then == now, f"{changed}\n{HOW}"


def test_the_lines_show_kinds_defaults_and_bases() -> None:
    """A parameter that became keyword-only, another default or another base of an error would change its line."""

    def called(first: int, /, second: str = "a", *, third: object = object(), **rest: int) -> None: ...

    assert parameters(called) == "(first, /, second='a', *, third=..., **rest)"
    assert class_lines(ConfigError) == [": DeltaMemError, ValueError"]


if __name__ == "__main__":
    for name, lines in SNAPSHOTS.items():
        (KEPT / name).write_text(text_of(lines()), encoding="utf-8")

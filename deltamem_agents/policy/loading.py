"""Read policies, and examples to try them on, from TOML or YAML."""

import importlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backbone import ConfigError
from deltamem_agents.policy.chain import PolicyChain
from deltamem_agents.policy.hooks import MemoryPolicy
from deltamem_agents.policy.rules import Budget, LegalHold, Novelty, PersonalData, Roles, Rule, Secrets, TimeToLive
from deltamem_agents.policy.trust import SourceTrust

__all__ = ["Example", "PolicyFile", "default_policy", "load_policy"]

_READY: Mapping[str, type[Rule]] = {
    rule.name: rule for rule in (Budget, LegalHold, Novelty, PersonalData, Roles, Secrets, SourceTrust, TimeToLive)
}
_LATER = "presidio"
_MAX_BYTES = 1024 * 1024


class Example(BaseModel):
    """Hold a message and what is expected of the decision to retain it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: str
    source: str = "user"
    expect: Mapping[str, bool | str | int | float | None] = Field(default_factory=dict)

    def misses(self, decision: BaseModel) -> list[str]:
        """Say which expectations a decision does not meet; empty if it meets all."""
        found = decision.model_dump(mode="json")
        unknown = sorted(self.expect.keys() - found.keys())
        if unknown:
            raise ConfigError(f"an example expects {unknown}, which no decision has; it has {sorted(found)}")
        return [
            f"{name}: {found[name]!r} instead of {value!r}"
            for name, value in self.expect.items()
            if found[name] != value
        ]


class PolicyFile(BaseModel):
    """Hold what a policy file says: policies in order, seconds for each hook, examples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: tuple[Mapping[str, Any], ...] = Field(min_length=1)
    timeout: float | None = 1.0
    example: tuple[Example, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> "PolicyFile":
        """Read a .toml, .yaml or .yml file; raises ConfigError if it cannot be one of a policy."""
        path = Path(path)
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ConfigError(f"a policy file has at most {_MAX_BYTES} bytes; {path} is larger")
            text = path.read_text(encoding="utf-8")
            data = _parsed(path.suffix, text)
            return cls.model_validate(data)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the policy file {path} cannot be read: {error}") from error
        except ValidationError as error:
            raise ConfigError(f"{path} is no policy file: {_told(error)}") from error

    def chain(self) -> PolicyChain:
        """Make the policies; raises ConfigError for a name or an option that does not exist."""
        return PolicyChain([_policy(entry) for entry in self.policy], timeout=self.timeout)


def load_policy(path: str | Path) -> PolicyChain:
    """Make the policies that a TOML or YAML file lists.

    Each entry names a ready-made policy with `use`, or a class of yours as "package.module:Class"; its other keys are
    options. Such a class is imported and called, so a policy file is to be trusted like code. Raises ConfigError for a
    file, name or option that cannot work.
    """
    return PolicyFile.read(path).chain()


def default_policy() -> PolicyChain:
    """Make a policy to begin with: secrets, trust, roles, novelty; `HybridMemory` uses none unless it is given one."""
    return PolicyChain([Secrets(), SourceTrust(), Roles(), Novelty()])


def _parsed(suffix: str, text: str) -> Any:
    try:
        if suffix == ".toml":
            return tomllib.loads(text)
        if suffix in {".yaml", ".yml"}:
            return yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"the policy file is no {suffix[1:].upper()}: {error}") from error
    raise ConfigError(f"a policy file ends in .toml, .yaml or .yml, got {suffix or 'no ending'!r}")


def _policy(entry: Mapping[str, Any]) -> MemoryPolicy:
    options = dict(entry)
    name = options.pop("use", None)
    kind = _ready(name)
    if kind is None:
        if not isinstance(name, str) or ":" not in name:
            raise ConfigError(f"a policy is one of {sorted([*_READY, _LATER])}, or package.module:Class; got {name!r}")
        return _own(name, options)
    try:
        return kind(**options)
    except ValidationError as error:
        raise ConfigError(f"the policy {name!r} cannot be made: {_told(error)}") from error


def _ready(name: object) -> type[Rule] | None:
    if name == _LATER:
        from deltamem_agents.policy.presidio import Presidio  # noqa: PLC0415 - those who do not use it do not load it

        return Presidio
    return _READY.get(name) if isinstance(name, str) else None


def _own(name: str, options: Mapping[str, Any]) -> MemoryPolicy:
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)(**options)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"the policy {name!r} cannot be made: {error}") from error
    if not isinstance(made, MemoryPolicy):
        raise ConfigError(f"{name!r} must make a MemoryPolicy, got {type(made).__name__}")
    return made


def _told(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, told['loc'])) or 'file'}: {told['msg']}" for told in error.errors())

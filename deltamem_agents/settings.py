"""Read the environment and the settings file; nothing else in the project does."""

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from backbone import ConfigError

__all__ = ["SETTINGS_FILE", "Settings", "settings_file", "use_settings_file"]

SETTINGS_FILE: Final = "deltamem.toml"

# A context variable, because a command's settings are made deep inside it, where its options are out of sight.
_CHOSEN: ContextVar[Path | None] = ContextVar("deltamem_settings_file", default=None)


class Settings(BaseSettings):
    """Hold what the command line takes where no option is given: DELTAMEM_* variables, and below them a TOML file.

    model, adapter, revision, device, dtype: as ChatDeltaMem takes them; unset are the bundled model, the CPU, and the
    checkpoint's own dtype. db: a URL for open_checkpointer.
    window_tokens, keep_tokens, max_tokens: tokens; unset is the model's default. archive_db, archive_index,
    archive_embeddings: as MemoryStore.from_url takes them.
    aes_key: 16, 24 or 32 bytes of text, not shown in print; unset leaves checkpoints unencrypted.
    Raises ConfigError for a value that cannot work, for a key of the file that is none of these, and for a file that is
    no TOML.
    """

    model_config = SettingsConfigDict(env_prefix="DELTAMEM_", extra="forbid", protected_namespaces=())

    model: str | None = None
    adapter: str | None = None
    revision: str | None = None
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    db: str = "sqlite:///deltamem.sqlite"
    window_tokens: PositiveInt | None = None
    keep_tokens: PositiveInt | None = None
    max_tokens: PositiveInt | None = None
    aes_key: SecretStr | None = None
    archive_db: str = "sqlite:///archive.sqlite"
    archive_index: str | None = None
    archive_embeddings: str | None = None

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError("; ".join(_explain(problem) for problem in error.errors())) from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{settings_file()} is not valid TOML: {error}") from error

    @property
    def chat_options(self) -> dict[str, Any]:
        """Give what ChatDeltaMem takes of them."""
        names = {"model", "adapter", "revision", "device", "dtype", "window_tokens", "keep_tokens", "max_tokens"}
        return self.model_dump(include=names, exclude_none=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let variables win over the file."""
        file = settings_file()
        return init_settings, env_settings, *([] if file is None else [TomlConfigSettingsSource(settings_cls, file)])


@contextmanager
def use_settings_file(path: Path | None) -> Iterator[None]:
    """Take the settings inside the block from this file; None leaves the choice to settings_file."""
    token = _CHOSEN.set(path)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def settings_file() -> Path | None:
    """Find the settings file: the one in use, DELTAMEM_CONFIG, or deltamem.toml in the working directory.

    Raises ConfigError if a file was named that does not exist.
    """
    variable = os.environ.get("DELTAMEM_CONFIG")
    named = _CHOSEN.get() or (Path(variable) if variable else None)
    if named is None:
        default = Path(SETTINGS_FILE)
        return default if default.is_file() else None
    if not named.is_file():
        raise ConfigError(f"there is no settings file {named}; --config and DELTAMEM_CONFIG name one that exists")
    return named


def _explain(problem: Any) -> str:
    """Say in one line which setting cannot work, where it was given, and why."""
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{settings_file()} has an unknown key {name!r}; known are {', '.join(sorted(Settings.model_fields))}"
    variable = f"DELTAMEM_{name.upper()}"
    given = variable if variable in os.environ else settings_file() or "its option"
    shown = "" if name == "aes_key" else f", got {problem['input']!r}"
    return f"the setting {name}, given by {given}, cannot work: {problem['msg']}{shown}"

"""Read the environment; nothing else in the project does."""

from pathlib import Path

from pydantic import PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Hold what the command line takes from DELTAMEM_* variables where no option is given.

    model, adapter: as ChatDeltaMem takes them; unset is the bundled model. db: a URL for open_checkpointer.
    window_tokens, keep_tokens, max_tokens: tokens; unset is the model's default. archive_db, archive_index,
    archive_embeddings: as MemoryStore.from_url takes them.
    aes_key: 16, 24 or 32 bytes of text, not shown in print; unset leaves checkpoints unencrypted.
    """

    model_config = SettingsConfigDict(env_prefix="DELTAMEM_", extra="ignore", protected_namespaces=())

    model: str | None = None
    adapter: str | None = None
    db: str = "sqlite:///deltamem.sqlite"
    window_tokens: PositiveInt | None = None
    keep_tokens: PositiveInt | None = None
    max_tokens: PositiveInt | None = None
    aes_key: SecretStr | None = None
    archive_db: str = "sqlite:///archive.sqlite"
    archive_index: Path | None = None
    archive_embeddings: str | None = None

"""The environment, read in one place."""

import pytest
from pydantic import ValidationError

from deltamem_agents.settings import Settings


def test_variables_with_the_prefix_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """DELTAMEM_* variables set the command line's defaults."""
    monkeypatch.setenv("DELTAMEM_MODEL", "org/name")
    monkeypatch.setenv("DELTAMEM_DB", "memory://")
    monkeypatch.setenv("DELTAMEM_WINDOW_TOKENS", "900")
    settings = Settings()
    assert (settings.model, settings.db, settings.window_tokens, settings.adapter) == (
        "org/name",
        "memory://",
        900,
        None,
    )


def test_without_variables_the_bundled_model_and_a_local_file_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to be set."""
    monkeypatch.delenv("DELTAMEM_DB", raising=False)
    monkeypatch.delenv("DELTAMEM_MODEL", raising=False)
    assert (Settings().db, Settings().model) == ("sqlite:///deltamem.sqlite", None)


def test_a_value_that_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window is a positive number of tokens."""
    monkeypatch.setenv("DELTAMEM_WINDOW_TOKENS", "0")
    with pytest.raises(ValidationError, match="window_tokens"):
        Settings()


def test_the_key_is_read_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """DELTAMEM_AES_KEY is taken, and printing the settings does not print it."""
    monkeypatch.setenv("DELTAMEM_AES_KEY", "0123456789abcdef")
    settings = Settings()
    assert settings.aes_key is not None
    assert settings.aes_key.get_secret_value() == "0123456789abcdef"
    assert "0123456789abcdef" not in repr(settings)

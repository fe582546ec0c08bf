"""The environment and the settings file, read in one place."""

from pathlib import Path

import pytest

from deltamem_agents import ChatDeltaMem, ConfigError
from deltamem_agents.settings import Settings, use_settings_file


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, without settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", *map(str.upper, Settings.model_fields)):
        monkeypatch.delenv(f"DELTAMEM_{name}", raising=False)
    return tmp_path


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


def test_without_variables_the_bundled_model_and_a_local_file_are_used() -> None:
    """Nothing has to be set."""
    assert (Settings().db, Settings().model) == ("sqlite:///deltamem.sqlite", None)


def test_what_a_model_takes_comes_from_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Revision, device and dtype can be set like model and adapter; what is not set is left to ChatDeltaMem."""
    assert Settings().chat_options == {}
    options = {"model": "org/name", "adapter": "x", "revision": "main", "device": "cpu", "dtype": "bfloat16"}
    for name, value in options.items():
        monkeypatch.setenv(f"DELTAMEM_{name.upper()}", value)
    assert Settings().chat_options == options
    assert ChatDeltaMem(**Settings().chat_options).dtype == "bfloat16"
    monkeypatch.setenv("DELTAMEM_DTYPE", "int3")
    with pytest.raises(ConfigError, match="dtype, given by DELTAMEM_DTYPE"):
        Settings()


def test_a_value_that_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window is a positive number of tokens."""
    monkeypatch.setenv("DELTAMEM_WINDOW_TOKENS", "0")
    with pytest.raises(ConfigError, match=r"window_tokens, given by DELTAMEM_WINDOW_TOKENS.*greater than 0, got '0'"):
        Settings()


def test_the_key_is_read_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """DELTAMEM_AES_KEY is taken, and printing the settings does not print it."""
    monkeypatch.setenv("DELTAMEM_AES_KEY", "0123456789abcdef")
    settings = Settings()
    assert settings.aes_key is not None
    assert settings.aes_key.get_secret_value() == "0123456789abcdef"
    assert "0123456789abcdef" not in repr(settings)


def test_a_variable_wins_over_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """deltamem.toml in the working directory is read, and a variable of the same name counts more."""
    (folder / "deltamem.toml").write_text('model = "from/file"\nmax_tokens = 5\n')
    monkeypatch.setenv("DELTAMEM_MAX_TOKENS", "7")
    assert (Settings().model, Settings().max_tokens) == ("from/file", 7)


def test_a_file_can_be_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file in use wins over DELTAMEM_CONFIG, and that over deltamem.toml; afterwards all is as before."""
    for name in ("deltamem", "variable", "used"):
        (folder / f"{name}.toml").write_text(f'model = "{name}"')
    assert Settings().model == "deltamem"
    monkeypatch.setenv("DELTAMEM_CONFIG", "variable.toml")
    assert Settings().model == "variable"
    with use_settings_file(folder / "used.toml"):
        assert Settings().model == "used"
    assert Settings().model == "variable"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('modle = "x"', "deltamem.toml has an unknown key 'modle'; known are adapter, "),
        ("[archive]\ndb = 'x'", "unknown key 'archive'"),
        ("model = ", "deltamem.toml is not valid TOML"),
        ("keep_tokens = -1", "keep_tokens, given by deltamem.toml, cannot work: .*got -1"),
    ],
)
def test_a_wrong_file_is_refused(folder: Path, text: str, said: str) -> None:
    """The error names the file, the key and what is wrong with it."""
    (folder / "deltamem.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        Settings()


def test_a_missing_file_and_a_wrong_key_of_cipher_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named file must exist; what a secret was is not repeated."""
    (folder / "deltamem.toml").write_text("aes_key = 123456")
    with pytest.raises(ConfigError, match="aes_key") as refused:
        Settings()
    assert "123456" not in str(refused.value)
    monkeypatch.setenv("DELTAMEM_CONFIG", "nowhere.toml")
    with pytest.raises(ConfigError, match=r"no settings file nowhere\.toml"):
        Settings()

"""The recipe that makes the bundled backbone."""

import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from backbone import load_adapter
from backbone.tiny import recipe
from backbone.tiny.recipe import ADAPTERS, main


@pytest.mark.slow
def test_quick_recipe_makes_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short recipe goes through every phase and leaves a model, a tokenizer and adapters that load."""
    monkeypatch.setattr(sys, "argv", ["recipe", "--quick", "--out", str(tmp_path)])
    main()

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "The test command is tox -e unit."
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    for name, config in ADAPTERS.items():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        assert load_adapter(model, tmp_path / "adapters" / name).config == config


def test_the_quick_recipe_does_not_replace_the_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --out it is refused before anything is trained."""
    monkeypatch.setattr(sys, "argv", ["recipe", "--quick"])
    monkeypatch.setattr(recipe, "__file__", str(tmp_path / "recipe.py"))
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

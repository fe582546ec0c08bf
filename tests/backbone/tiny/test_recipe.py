"""The recipe that makes the bundled backbone."""

from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from backbone import load_adapter
from backbone.tiny.recipe import ADAPTERS, QUICK, run_recipe


@pytest.mark.slow
def test_quick_recipe_makes_every_file(tmp_path: Path) -> None:
    """The short recipe goes through every phase and leaves a model, a tokenizer and adapters that load."""
    run_recipe(QUICK, tmp_path, Console(quiet=True))

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "The test command is tox -e unit."
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    for name, config in ADAPTERS.items():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        assert load_adapter(model, tmp_path / "adapters" / name).config == config

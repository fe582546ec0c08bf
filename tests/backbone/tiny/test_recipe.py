"""The recipe that makes the bundled backbone."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from backbone import load_adapter
from backbone.tiny import recipe
from backbone.tiny.recipe import ADAPTERS, QUICK, kept, main


def files(folder: Path) -> dict[str, bytes]:
    """Return what the files of a folder hold."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_quick_recipe_makes_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short recipe goes through every phase and leaves a model, a tokenizer and adapters that load.

    Interrupted and run again, it does what was left, and makes the same.
    """
    whole, again, work = (tmp_path / name for name in ("whole", "again", "work"))
    monkeypatch.setattr(sys, "argv", ["recipe", "--quick", "--out", str(whole), "--work", str(work)])
    main()

    tokenizer = AutoTokenizer.from_pretrained(whole / "model")
    text = "The test command is tox -e unit."
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    for name, config in ADAPTERS.items():
        model = AutoModelForCausalLM.from_pretrained(whole / "model")
        assert load_adapter(model, whole / "adapters" / name).config == config

    ends = [
        load_file(next(work.glob(f"{name}-*")) / "model.safetensors") for name in ("backbone-3", "branch-1", "branch-2")
    ]
    for name, weight in load_file(whole / "model" / "model.safetensors").items():
        torch.testing.assert_close(weight, torch.stack([end[name] for end in ends]).mean(0))
        assert weight.dim() == 1 or not torch.equal(weight, ends[0][name])

    for place in (
        *work.glob("backbone-[13]-*"),
        *work.glob("branch-2-*"),
        *work.glob("msw-[4-7]-*"),
        *work.glob("tsw-*"),
        *work.glob("ssw-[34]-*"),
    ):
        shutil.rmtree(place)
    left = {place.name for place in work.iterdir()}
    monkeypatch.setattr(sys, "argv", ["recipe", "--quick", "--out", str(again), "--work", str(work)])
    main()
    assert {name.rsplit("-", 1)[0] for name in left} == {
        "backbone-2",
        "branch-1",
        *(f"msw-{n}" for n in (1, 2, 3)),
        "ssw-1",
        "ssw-2",
    }
    assert files(again) == files(whole)


def test_what_other_options_have_made_is_not_taken_over(tmp_path: Path) -> None:
    """A folder of kept phases tells recipes apart, and a phase by all that came before it."""
    longer = replace(QUICK, backbone=[replace(QUICK.backbone[0], steps=5), *QUICK.backbone[1:]])
    for phase in (1, 2):
        places = [kept(tmp_path, "backbone", one, one.backbone[:phase]) for one in (QUICK, longer)]
        assert places[0] != places[1]
    assert kept(tmp_path, "backbone", QUICK, ()) != kept(tmp_path, "backbone", replace(QUICK, vocab_size=9), ())
    assert kept(None, "backbone", QUICK, ()) is None


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

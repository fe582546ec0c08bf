"""Look into adapters and convert them from the command line."""

import json
import sys
from pathlib import Path

import pytest

from backbone import describe_adapter
from deltamem_agents.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `deltamem adapter` in this process, and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["deltamem", "adapter", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_json_has_options_size_share_and_half_life(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path
) -> None:
    """One JSON object on stdout; the share is of the model that is named."""
    path = str(model_folder / "token")
    assert run(monkeypatch, "inspect", path, "--model", str(model_folder), "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    described = describe_adapter(path)
    assert figures["format"] == "project"
    assert figures["options"] == described.config.to_dict()
    assert figures["parameters"] == described.parameters
    assert figures["share"] == pytest.approx(described.parameters / figures["backbone_parameters"])
    assert [layer["half_life"] for layer in figures["layers"]] == [list(layer.half_life) for layer in described.layers]


def test_a_table_says_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path
) -> None:
    """Without --json it is tables; without --model the share is not guessed."""
    path = str(model_folder / "message")
    assert run(monkeypatch, "inspect", path) == 0
    table = capsys.readouterr().out
    assert f"{describe_adapter(path).parameters:,}" in table
    assert "granularity" in table
    assert "message" in table
    assert "unknown, give --model" in table
    assert table.count("self_attn") == 2


def test_bundled_adapters_are_known_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The share of a bundled adapter is of the bundled model; what never fades has a half-life of null."""
    assert run(monkeypatch, "inspect", "msw", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert 0 < figures["share"] < 1
    assert figures["options"]["update_mode"] == "no_lambda"
    assert {tuple(layer["half_life"]) for layer in figures["layers"]} == {(None, None, None)}
    assert run(monkeypatch, "inspect", "msw") == 0
    assert "endless" in capsys.readouterr().out


def test_convert_goes_both_ways(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, tmp_path: Path
) -> None:
    """An adapter is written in the format that it is not in, and the output says which."""
    there, back = tmp_path / "there", tmp_path / "back"
    assert run(monkeypatch, "convert", str(model_folder / "token"), str(there)) == 0
    assert "published" in capsys.readouterr().out
    assert run(monkeypatch, "convert", str(model_folder / "token"), str(tmp_path / "json"), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"adapter": str(tmp_path / "json"), "format": "published"}
    assert {file.name for file in there.iterdir()} == {"delta_mem_config.json", "delta_mem_adapter.pt"}
    assert run(monkeypatch, "convert", str(there), str(back)) == 0
    assert "this project's" in capsys.readouterr().out
    assert {f.name: f.read_bytes() for f in back.iterdir()} == {
        f.name: f.read_bytes() for f in (model_folder / "token").iterdir()
    }


def test_what_is_no_adapter_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A folder without an adapter ends the program with one line that says what was expected."""
    assert run(monkeypatch, "inspect", str(tmp_path)) == 1
    assert run(monkeypatch, "inspect", "no-such-adapter") == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "holds no adapter" in errors[0]
    assert "expected a folder" in errors[1]

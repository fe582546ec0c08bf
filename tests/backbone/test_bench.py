"""Run the backbone's benchmark at its smallest."""

import json

import pytest
import torch

from backbone.bench.__main__ import main
from backbone.bench.cpu import RATIOS
from backbone.bench.gpu import QWEN3_4B, measure_prompt, random_backbone
from backbone.bench.timing import median_ratios, take_turns


@pytest.mark.parametrize("form", [["--json"], []])
def test_overhead_is_printed(capsys: pytest.CaptureFixture[str], form: list[str]) -> None:
    """Both measurements come with their ratio, as JSON or as a line each."""
    main(["model", "--tokens", "64", "--repeats", "1", *form])
    out = capsys.readouterr().out
    if form:
        results = json.loads(out)
        assert [result["what"] for result in results] == ["prefill", "decode"]
        assert all(result["ratio"] == result["memory_seconds"] / result["frozen_seconds"] for result in results)
    else:
        assert out.startswith("prefill of 64 tokens: frozen ")
        assert out.count("ratio") == 2


def test_every_ratio_of_the_fixed_case_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON object has the ratios by their names, each above what no memory could do."""
    main(["cpu", "--quick", "--json"])
    ratios = json.loads(capsys.readouterr().out)
    assert tuple(ratios) == RATIOS
    assert all(0.1 < ratio < 100 for ratio in ratios.values())


def test_single_ratios_are_printed_beside_their_targets(capsys: pytest.CaptureFixture[str]) -> None:
    """`--only` measures what it names, and the table says what each is to stay under."""
    main(["cpu", "--quick", "--only", "decode_b1", "prefill_naive"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["prefill_naive", "decode_b1"]
    assert lines[2].endswith("≤ 1.08")


def test_ratios_are_medians_of_what_ran_side_by_side() -> None:
    """Each round gives one ratio, so a round in which everything is slow changes nothing."""
    ticks = iter([0, 1, 1, 3, 10, 30, 30, 40, 50, 51, 51, 53])
    seconds = take_turns({"base": lambda: None, "other": lambda: None}, 3, clock=lambda: float(next(ticks)))
    assert seconds == {"base": [1.0, 10.0, 1.0], "other": [2.0, 20.0, 2.0]}
    assert median_ratios(seconds, "base") == {"other": 2.0}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said_plainly() -> None:
    """Without a GPU the command ends with a line that says so, and with an error code."""
    with pytest.raises(SystemExit, match="no GPU is here"):
        main(["gpu"])


def test_what_runs_on_a_gpu_runs_without_one() -> None:
    """Prefill and decoding are compared wherever the model is, in bfloat16 and a small shape."""
    small = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    frozen = random_backbone(QWEN3_4B | small | heads, torch.device("cpu"))
    assert frozen.dtype == torch.bfloat16
    ratios = measure_prompt(frozen, tokens=20, steps=3, rounds=1)
    assert ratios.keys() == {"prefill", "decode"}
    assert all(0.01 < ratio < 100 for ratio in ratios.values())

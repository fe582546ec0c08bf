"""Run the backbone's benchmark at its smallest."""

import json
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch

from backbone import DeltaMemConfig, attach_memory
from backbone.bench.__main__ import main
from backbone.bench.cpu import RATIOS
from backbone.bench.gpu import QWEN3_4B, captured, measure_prompt, random_backbone
from backbone.bench.gpu import TARGETS as GPU_TARGETS
from backbone.bench.model import decode_overhead, prefill_overhead
from backbone.bench.timing import median_ratios, take_turns

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


@pytest.mark.parametrize("form", [["--json"], []])
def test_overhead_is_printed(capsys: pytest.CaptureFixture[str], form: list[str]) -> None:
    """Both measurements come with their ratio, as JSON or as a line each."""
    main(["model", "--tokens", "64", "--repeats", "1", *form])
    out = capsys.readouterr().out
    if form:
        results = json.loads(out)
        assert [result["what"] for result in results] == ["prefill", "decode"]
        assert [result["tokens"] for result in results] == [64, 1]
        assert all(result["ratio"] > 0 for result in results)
    else:
        assert out.startswith("prefill of 64 tokens: frozen ")
        assert out.count("ratio") == 2


def test_what_is_timed_is_what_the_measurement_names() -> None:
    """By a clock that counts the tokens that were read, prefill takes those of its prompt, and decoding its steps."""
    frozen = random_backbone(QWEN3_4B | SMALL, torch.device("cpu"))
    model = attach_memory(frozen, DeltaMemConfig(rank=4), seed=0)
    read = 0

    def note(_: object, __: object, given: dict[str, torch.Tensor]) -> None:
        nonlocal read
        read += given["input_ids"].shape[1]

    frozen.register_forward_pre_hook(note, with_kwargs=True)
    prefill = prefill_overhead(model, tokens=6, repeats=2, clock=lambda: float(read))
    decode = decode_overhead(model, tokens=5, context=7, repeats=2, clock=lambda: float(read))
    assert (prefill.frozen_seconds, prefill.memory_seconds, prefill.ratio) == (6.0, 6.0, 1.0)
    assert (decode.frozen_seconds, decode.memory_seconds, decode.ratio) == (5.0, 5.0, 1.0)


def test_every_ratio_of_the_fixed_case_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON object has the ratios by their names, each above what no memory could do."""
    main(["cpu", "--quick", "--json"])
    ratios = json.loads(capsys.readouterr().out)
    assert tuple(ratios) == RATIOS
    assert all(0.1 < ratio < 100 for ratio in ratios.values())


def test_single_ratios_are_printed_beside_their_targets(capsys: pytest.CaptureFixture[str]) -> None:
    """`--only` measures what it names, and the table says what each is to stay under."""
    main(["cpu", "--quick", "--only", "decode_b1", "prefill_naive"])
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["prefill_naive", "decode_b1"]
    assert printed.err == "tokens are decoded by machine code\n"
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


@pytest.mark.parametrize("form", [["--json"], []])
def test_each_prompts_ratios_are_printed_as_they_come(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    """A prompt that does not fit takes nothing away from those before it; the result itself stays one object."""
    ratios = dict.fromkeys(GPU_TARGETS, 1.0)
    fits = True

    def measured() -> Iterator[tuple[int, dict[str, float]]]:
        yield 1024, ratios
        if not fits:
            raise torch.OutOfMemoryError
        yield 8192, ratios

    monkeypatch.setattr("backbone.bench.__main__.measure_gpu", measured)
    main(["gpu", *form])
    out = capsys.readouterr().out
    if form:
        assert json.loads(out) == {"1024": ratios, "8192": ratios}
    else:
        assert [line.split()[0] for line in out.splitlines()] == ["prompt", "1024", "8192", "target"]
    fits = False
    with pytest.raises(torch.OutOfMemoryError):
        main(["gpu", *form])
    assert json.loads(capsys.readouterr().err) == {"1024": ratios}


def test_what_runs_on_a_gpu_runs_without_one() -> None:
    """Prefill and decoding are compared wherever the model is, in bfloat16 and a small shape."""
    frozen = random_backbone(QWEN3_4B | SMALL, torch.device("cpu"))
    assert frozen.dtype == torch.bfloat16
    ratios = measure_prompt(frozen, tokens=20, steps=3, rounds=1)
    assert ratios.keys() == {"prefill", "decode"}
    assert all(0.01 < ratio < 100 for ratio in ratios.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_graph_keeps_what_it_works_on() -> None:
    """The tensors of a captured step live for as long as it can be replayed."""

    def counting() -> tuple[Callable[[], None], weakref.ref[torch.Tensor]]:
        counter = torch.zeros(1, device="cuda")

        def step() -> None:
            counter.add_(1)

        return step, weakref.ref(counter)

    step, counter = counting()
    replay = captured(step, 4)
    del step
    replay()
    kept = counter()
    assert kept is not None
    assert kept.item() == 3 + 4

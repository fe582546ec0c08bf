"""Run the backbone's benchmark at its smallest."""

import json

import pytest

from backbone import bench


@pytest.mark.parametrize("form", [["--json"], []])
def test_overhead_is_printed(capsys: pytest.CaptureFixture[str], form: list[str]) -> None:
    """Both measurements come with their ratio, as JSON or as a line each."""
    bench.main(["--tokens", "64", "--repeats", "1", *form])
    out = capsys.readouterr().out
    if form:
        results = json.loads(out)
        assert [result["what"] for result in results] == ["prefill", "decode"]
        assert all(result["ratio"] == result["memory_seconds"] / result["frozen_seconds"] for result in results)
    else:
        assert out.startswith("prefill of 64 tokens: frozen ")
        assert out.count("ratio") == 2

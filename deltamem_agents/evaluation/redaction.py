"""Time the redaction of secrets, on ordinary text and on text made to be slow."""

import statistics
import time
from pathlib import Path

from deltamem_agents.policy import redact_secrets

__all__ = ["measure_redaction"]

_KILOBYTES = 64
_HOSTILE = {
    "keywords and signs": "password is token=secret: api_key ",
    "starts of tokens": "eyJ.sk-AKIAghp_xoxb-://a:",
    "unfinished private keys": "-----BEGIN PRIVATE KEY-----\n",
}


def measure_redaction(repeats: int) -> list[dict[str, float | str]]:
    """Return milliseconds of processor time per kB for each kind of text, each as a ratio to this project's own code.

    growth: the time per kB of a text eight times as long, divided by that of the short one; 1 is linear.
    """
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py")))
    rows: list[dict[str, float | str]] = []
    for name, piece in {"code": code, **_HOSTILE}.items():
        text = (piece * (_KILOBYTES * 128 // len(piece) + 1))[: _KILOBYTES * 128]
        long, short = _milliseconds(text * 8, repeats), _milliseconds(text, repeats)
        rows.append({"text": name, "ms_per_kb": long, "growth": long / short})
    return [row | {"ratio": float(row["ms_per_kb"]) / float(rows[0]["ms_per_kb"])} for row in rows]


def _milliseconds(text: str, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        redact_secrets(text)
        times.append(time.process_time() - begin)
    return statistics.median(times) * 1000 / (len(text) / 1024)

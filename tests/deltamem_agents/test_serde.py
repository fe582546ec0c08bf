"""The serializer of checkpoints: LangGraph's bytes, without the secrets."""

import base64
import dataclasses
import datetime as dt
import decimal
import pathlib
import uuid
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt, Send
from pydantic import BaseModel

from backbone import MemoryState
from deltamem_agents._serde import CheckpointSerializer
from deltamem_agents.policy import redact_secrets
from deltamem_agents.working_memory import WorkingMemory

SECRET = "Xj4kTulip"
SAID = f"my password is {SECRET}"
PLAIN = JsonPlusSerializer(allowed_msgpack_modules=None)


@dataclasses.dataclass
class Note:
    text: str


class Form(BaseModel):
    text: str


WRITTEN: dict[str, Any] = {
    "text": SAID,
    "list": [1, [SAID]],
    "tuple": (SAID, 2),
    "set": {SAID},
    "mapping": {"a": {"b": SAID}},
    "key of a mapping": {SAID: 1},
    "name of a mapping": {"password": SECRET, "user": "bob"},
    "list under a name": {"passwords": ["", SECRET]},
    "dataclass": Note(SAID),
    "model": Form(text=SAID),
    "human message": HumanMessage(SAID),
    "blocks": HumanMessage([{"type": "text", "text": SAID}]),
    "tool call": AIMessage("", tool_calls=[{"name": "login", "args": {"password": SECRET}, "id": "1"}]),
    "arguments as JSON": AIMessage("", additional_kwargs={"arguments": f'{{"password": "{SECRET}"}}'}),
    "tool result": ToolMessage(SAID, tool_call_id="1"),
    "artifact": ToolMessage("ok", tool_call_id="1", artifact={"log": [SAID]}),
    "send": Send("node", {"text": SAID}),
    "interrupt": Interrupt(SAID),
    "bytes": SAID.encode(),
    "bytes in a mapping": {"output": f"\x1b[1mlogin\x1b[0m\n{SAID}\n".encode()},
    "bytes under a name": {"password": SECRET.encode()},
    "bytes of an artifact": ToolMessage("ok", tool_call_id="1", artifact=[SAID.encode()]),
    "path": pathlib.Path("notes") / f"password is {SECRET}",
}
PLAIN_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20).filter(lambda text: not redact_secrets(text).findings)
    | st.binary(max_size=20)
    | st.datetimes()
    | st.decimals(allow_nan=False)
    | st.uuids(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_secret_in_any_kind_of_value_is_redacted(kind: str) -> None:
    """The bytes hold no secret, the value read back has a placeholder, and what was written is not changed."""
    value = WRITTEN[kind]
    before = PLAIN.dumps_typed(value)
    assert SECRET.encode() in before[1]
    written = CheckpointSerializer(redacts=True).dumps_typed(value)
    assert SECRET.encode() not in written[1]
    assert "[redacted:password]" in str(CheckpointSerializer(redacts=True).loads_typed(written))
    assert PLAIN.dumps_typed(value) == before
    assert CheckpointSerializer(redacts=False).dumps_typed(value) == before


@settings(max_examples=150, deadline=None)
@given(PLAIN_VALUES)
def test_values_without_secrets_have_langgraphs_bytes(value: Any) -> None:
    """Nothing else changes: types, numbers, order and bytes are those that LangGraph writes."""
    assert CheckpointSerializer(redacts=True).dumps_typed(value) == PLAIN.dumps_typed(value)


def test_special_values_have_langgraphs_bytes() -> None:
    """Arrays, dates, paths, bytes that are no text, and the like pass through as they are."""
    value = {
        "array": np.arange(6.0).reshape(2, 3),
        "id": uuid.UUID(int=7),
        "time": dt.datetime(2026, 11, 21, tzinfo=dt.UTC),
        "sum": decimal.Decimal("1.20"),
        (1, "key"): {2: 3},
        "packed": b"\x0a\x12" + SAID.encode(),
        "in another encoding": f"\xe9 {SAID}".encode("latin-1"),
        "messages": [HumanMessage("hello", id="a"), AIMessage("hi", id="b", usage_metadata=None)],
    }
    assert CheckpointSerializer(redacts=True).dumps_typed(value) == PLAIN.dumps_typed(value)


def test_a_memory_is_not_touched_in_either_form() -> None:
    """The memory's bytes, and its text on a reply, are random to a scanner; they stay what they are."""
    state = MemoryState({"x": torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))}, "abc")
    data = WorkingMemory(state).to_bytes()
    text = base64.b64encode(data).decode()
    reply = AIMessage(SAID, response_metadata={"delta_mem": text})
    serde = CheckpointSerializer(redacts=True)
    read = serde.loads_typed(serde.dumps_typed({"delta_mem": data, "messages": [reply]}))
    assert read["delta_mem"] == data
    assert read["messages"][0].response_metadata == {"delta_mem": text}
    assert SECRET not in read["messages"][0].text
    assert serde.loads_typed(serde.dumps_typed(data)) == data


def test_a_text_that_only_begins_like_a_memory_is_redacted() -> None:
    """The exception for memories cannot be used to hide a sentence."""
    serde = CheckpointSerializer(redacts=True)
    assert SECRET not in serde.loads_typed(serde.dumps_typed(f"REVMVEFNV0 {SAID}"))


def test_what_was_found_clean_stays_so_and_is_forgotten_in_bounds() -> None:
    """Known strings are not read twice; the list of them does not grow without end, and no secret gets onto it."""
    serde = CheckpointSerializer(redacts=True)
    for start in range(0, 66_000, 22_000):
        serde.dumps_typed([str(number) for number in range(start, start + 22_000)])
    assert len(serde._clean) <= 65_536
    for _ in range(2):
        assert SECRET.encode() not in serde.dumps_typed([SAID, "hello"])[1]

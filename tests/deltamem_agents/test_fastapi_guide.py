"""What the guide to FastAPI says of a client that goes away, with a real server on a Unix socket."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from deltamem_agents import ChatDeltaMem, open_checkpointer

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "fastapi.md"
REPLY_TOKENS = 500


def service(model: Any) -> Any:
    """Return the guide's app, with this in place of its model."""
    [program] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "service"}
    exec(compile(program, str(PAGE), "exec"), names)  # noqa: S102 - the repository's page
    names["ChatDeltaMem"] = model
    return names["app"]


@asynccontextmanager
async def client_of(app: Any, socket: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the app; the block's end waits until every request has ended."""
    server = uvicorn.Server(uvicorn.Config(app, uds=socket, log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn announces it in no other way
        await asyncio.sleep(0.05)
    try:
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=socket), base_url="http://service", timeout=300
        ) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


async def begun(app: Any, thread: str) -> None:
    """Wait until the agent has taken what was sent; its reply takes longer."""
    while not (await app.state.agent.aget_state({"configurable": {"thread_id": thread}})).values:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def said_in(thread: str) -> list[str]:
    async with open_checkpointer("sqlite:///threads.sqlite") as saver:
        found = await saver.aget_tuple({"configurable": {"thread_id": thread}})
    assert found is not None
    return [message.type for message in found.checkpoint["channel_values"]["messages"]]


async def test_a_closed_connection_stops_a_stream_and_no_plain_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    """A client that leaves ends a streamed reply, which is then in no thread; a plain one is written to its end."""
    monkeypatch.chdir(tmp_path)
    # Random weights never end a reply, so both replies are far from done when the clients leave.
    model = partial(ChatDeltaMem, model=str(model_folder), adapter=str(model_folder / "token"), max_tokens=REPLY_TOKENS)
    app = service(model)
    async with client_of(app, "service.sock") as client:
        async with client.stream("POST", "/threads/streamed/stream", json={"text": "hello"}) as reply:
            assert await anext(reply.aiter_text())
        waiting = asyncio.create_task(client.post("/threads/plain", json={"text": "hello"}))
        await begun(app, "plain")
        waiting.cancel()
        whole = await client.post("/threads/whole/stream", json={"text": "hello"})
        assert whole.status_code == 200

    assert await said_in("streamed") == ["human"]
    assert await said_in("plain") == ["human", "ai"]
    assert await said_in("whole") == ["human", "ai"]

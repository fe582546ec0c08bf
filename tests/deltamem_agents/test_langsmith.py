"""What LangSmith is sent of a run: secrets as they were said, or placeholders where its client is told to."""

import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langsmith import Client, tracing_context
from langsmith.anonymizer import create_anonymizer

from deltamem_agents.policy import redact_secrets

SECRET = "hunter2-and-more"
ARGUMENT = "Tr0ub4dor-and-more"
MESSAGE = f"The password is {SECRET}."

Sent = list[bytes]


@pytest.fixture
def server() -> Iterator[tuple[str, Sent]]:
    """Take what a LangSmith client posts, at an address of this machine."""
    sent: Sent = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(202)
            self.end_headers()
            self.wfile.write(b"{}")

        do_PATCH = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", sent
        running.shutdown()
        thread.join()


def _placeholder(text: str, path: Sequence[object]) -> str:
    name = next((f"{part}: " for part in reversed(path) if isinstance(part, str)), "")
    return redact_secrets(name + text).text.removeprefix(name)


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize(("anonymizer", "told"), [(None, True), (create_anonymizer(_placeholder, max_depth=50), False)])
def test_a_client_with_an_anonymizer_is_sent_no_secret(
    server: tuple[str, Sent], anonymizer: Callable[[Any], Any] | None, told: bool
) -> None:
    """The input of a graph is traced before any policy has seen it, so the client itself has to redact it."""
    url, sent = server
    client = Client(api_url=url, api_key="none", anonymizer=anonymizer, auto_batch_tracing=False)
    agent = create_agent(GenericFakeChatModel(messages=iter([AIMessage(f"Noted: {MESSAGE}")])))
    call = AIMessage("", tool_calls=[{"name": "login", "args": {"password": ARGUMENT}, "id": "c"}])
    said = [HumanMessage(MESSAGE), call, ToolMessage("done", tool_call_id="c")]
    with tracing_context(enabled=True, client=client):
        agent.invoke({"messages": said})
    client.flush()

    assert any(b"The password is" in body for body in sent)
    assert any(SECRET.encode() in body for body in sent) is told
    assert any(ARGUMENT.encode() in body for body in sent) is told

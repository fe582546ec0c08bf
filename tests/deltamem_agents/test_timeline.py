"""A thread as a timeline, against what its checkpoints and its archive hold."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, SystemMessage

from backbone import load_backbone, render_prompt
from deltamem_agents import ChatDeltaMem, ConfigError, HybridMemory, MemoryStore, memory_from, open_checkpointer
from deltamem_agents.cli import main
from deltamem_agents.cli.timeline import sparkline
from deltamem_agents.gates import read_gates
from deltamem_agents.messages import to_template_message
from deltamem_agents.timeline import Timeline, archived_events, decided_events, thread_timeline

TURNS = 6
CONFIG = {"configurable": {"thread_id": "notes"}}


class Told(NamedTuple):
    """A thread of some turns on disk: its agent, checkpointer, archive and folder."""

    agent: Any
    saver: Any
    store: MemoryStore
    folder: Path

    @property
    def timeline(self) -> Timeline:
        """Read the thread anew."""
        return thread_timeline(self.saver, "notes")


def tell(agent: Any, turns: range) -> None:
    for turn in turns:
        said = HumanMessage(f"the weather in yes and no is {turn} {turn}", id=f"u{turn}")
        agent.invoke({"messages": [said]}, CONFIG)


@pytest.fixture(params=[False, True], ids=["kept", "trimmed"])
def told(request: pytest.FixtureRequest, model: ChatDeltaMem, tmp_path: Path) -> Iterator[Told]:
    """Take an agent with a small window and an archive through a few turns; absorbed messages stay or are trimmed."""
    with (
        MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store,
        HybridMemory(store, namespace=("acme",), threshold=0.0) as memory,
        open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver,
    ):
        agent = create_agent(model, middleware=memory.middleware(trim_history=request.param), checkpointer=saver)
        tell(agent, range(TURNS))
        memory.flush()
        yield Told(agent, saver, store, tmp_path)


def test_the_timeline_is_what_the_checkpoints_hold(told: Told) -> None:
    """Everything said is there once and in order, and what was absorbed adds up to the newest memory."""
    timeline = told.timeline
    said = [event for event in timeline.events if event.kind == "said"]
    assert [event.who for event in said] == ["user", "agent"] * TURNS
    assert [event.text for event in said[::2]] == [f"the weather in yes and no is {t} {t}" for t in range(TURNS)]
    assert [message.text for message in timeline.messages] == [event.text for event in said]
    newest = told.agent.get_state(CONFIG)
    memory = memory_from(newest)
    absorbed = [event for event in timeline.events if event.kind == "absorbed"]
    assert memory is not None
    assert sum(event.detail["messages"] for event in absorbed) == memory.messages == timeline.memory[-1].messages
    assert timeline.memory[-1].tokens == memory.tokens
    assert timeline.fingerprint == memory.fingerprint
    norms = {name: float(torch.linalg.vector_norm(layer)) for name, layer in memory.state.layers.items()}
    assert timeline.memory[-1].norms == pytest.approx(norms)
    assert "the weather in yes and no is 0 0" in absorbed[0].text
    times = [event.time for event in timeline.events]
    assert times == sorted(times)
    assert timeline.checkpoints == len(list(told.agent.get_state_history(CONFIG)))


def test_recall_archive_and_decisions_are_in_it(told: Told) -> None:
    """Each recalled block that a reply reports is an event, and so is each record and each entry of the audit log."""
    reports = [m.response_metadata.get("recalled") for m in told.timeline.messages]
    recalled = [event for event in told.timeline.events if event.kind == "recalled"]
    assert [event.detail["found"] for event in recalled] == [report for report in reports if report]
    assert recalled
    archived = archived_events(told.store, ("acme",), "notes")
    assert {event.text for event in archived} == {message.text for message in told.timeline.messages}
    assert archived_events(told.store, ("other",), "notes") == []
    decided = decided_events(told.store, ("acme",), "notes")
    log = told.store.records.audit_entries(("acme",), thread="notes", limit=1000)
    assert [event.detail["action"] for event in decided] == [entry.action for entry in reversed(log)]
    assert {"write", "recall"} <= {entry.action for entry in log}
    assert all(event.text.startswith(f"{event.detail['action']}: {event.detail['reason']}") for event in decided)


def test_a_fork_is_told_along_its_own_branch(told: Told) -> None:
    """After going back and saying something else, what was said on the other branch is not in the timeline."""
    history = list(told.agent.get_state_history(CONFIG))
    ended = [found for found in history if not found.next and any(m.id == "u2" for m in found.values["messages"])]
    before = ended[-1]  # history has the newest first
    told.agent.invoke({"messages": [HumanMessage("no", id="fork")]}, before.config)
    said = [message.id for message in told.timeline.messages if isinstance(message, HumanMessage)]
    assert said == ["u0", "u1", "u2", "fork"]


def test_an_unknown_thread_is_an_error(told: Told) -> None:
    """The error says how to find the threads there are."""
    with pytest.raises(ConfigError, match="no thread 'nobody'; `deltamem threads list`"):
        thread_timeline(told.saver, "nobody")


def test_gates_are_those_of_reading_the_messages(model_folder: Path) -> None:
    """The last norm is that of a state which has read all messages, and a system message is read by none."""
    backbone = load_backbone(str(model_folder), adapter=str(model_folder / "token"))
    talk = [HumanMessage(f"hello {number} yes you", id=str(number)) for number in range(40)]
    readings = list(read_gates(backbone, [SystemMessage("be nice"), *talk]))
    assert [reading.text for reading in readings] == [message.text for message in talk]
    assert all(reading.write_gate is not None and 0 < reading.write_gate < 1 for reading in readings)
    # One message a pass or all in one: the state goes on from pass to pass, so there is one answer up to attention.
    few = talk[:3]
    prompt = render_prompt(
        backbone.tokenizer, [to_template_message(message) for message in few], add_generation_prompt=False
    )
    with torch.inference_mode():
        state = backbone.model(torch.tensor([prompt.ids])).memory
    norm = torch.stack([layer.square().sum().sqrt() for layer in state.layers.values()]).mean()
    assert list(read_gates(backbone, few))[-1].norm == pytest.approx(float(norm), rel=1e-4)
    assert list(read_gates(backbone, [SystemMessage("be nice")])) == []


@pytest.mark.parametrize(
    ("values", "top", "drawn"),
    [([], None, ""), ([0.0, 1.0], None, "▁█"), ([0.5, None, 2.0], 1.0, "▅ █"), ([0.0, 0.0], None, "▁▁")],
)
def test_a_sparkline_has_one_bar_a_value(values: list[float | None], top: float | None, drawn: str) -> None:
    """Bars are scaled to the top; what is missing is a gap, what is too large is the highest bar."""
    assert sparkline(values, top) == drawn


Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], told: Told, model_folder: Path) -> Show:
    """Run `deltamem thread show` in this process on the thread; return exit status, stdout and stderr."""
    monkeypatch.chdir(told.folder)
    monkeypatch.setenv("DELTAMEM_DB", "sqlite:///threads.sqlite")
    monkeypatch.setenv("DELTAMEM_MODEL", str(model_folder))
    monkeypatch.setenv("DELTAMEM_ADAPTER", str(model_folder / "token"))

    def run_one(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["deltamem", "thread", "show", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run_one


def test_the_command_prints_events_and_a_plot(run: Show, told: Told, model_folder: Path) -> None:
    """Lines, JSON and picture come from the same timeline; gates need the thread's own adapter."""
    status, out, _ = run("notes", "--namespace", "acme", "--plot", "notes.png")
    lines = out.splitlines()
    events = [line.split()[2] for line in lines if line[:4].isdigit()]
    kinds = [event.kind for event in told.timeline.events]
    assert status == 0
    assert {event for event in events if event not in kinds} == {"archived", "decided"}
    assert [event for event in events if event in kinds] == kinds
    assert lines[-3].startswith("state norm")
    assert lines[-2].startswith("write gate")
    assert lines[-1].startswith("surprise")
    assert (told.folder / "notes.png").read_bytes().startswith(b"\x89PNG")
    _, out, _ = run("notes", "--json")
    found = json.loads(out)
    assert [event["kind"] for event in found["events"]] == kinds
    assert len(found["gates"]) == 2 * TURNS
    _, out, _ = run("notes", "--json", "--no-gates")
    assert json.loads(out)["gates"] == []
    _, out, _ = run("notes", "--adapter", str(model_folder / "states"))
    assert "gates: not measured" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nobody"], "nobody"),
        (["notes", "--plot", "x.what"], "x.what"),
        (["notes", "--db", "oracle://x"], "oracle"),
        (["notes", "--db", "sqlite:///nowhere.sqlite"], "nowhere.sqlite"),
    ],
)
def test_mistakes_are_one_line(run: Show, arguments: list[str], named: str) -> None:
    """A thread that is not there, a picture of an unknown kind and a wrong URL end with status 1; no file appears."""
    before = sorted(Path().iterdir())
    status, out, err = run(*arguments)
    assert sorted(Path().iterdir()) == before
    assert (status, out) == (1, "")
    assert len(err.strip().splitlines()) == 1
    assert named in err


def test_a_long_sparkline_fits_and_keeps_its_peaks() -> None:
    """Where values are more than characters, a bar is the greatest of its neighbours; what is missing stays missing."""
    values: list[float | None] = [*[None] * 30, *[0.0] * 270]
    values[-2] = 1.0
    assert sparkline(values, width=10) == " ▁▁▁▁▁▁▁▁█"
    assert sparkline([0.0, 1.0], width=2) == "▁█"

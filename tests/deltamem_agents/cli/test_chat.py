"""Talk to `deltamem chat` as a person does: lines in, text out, Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# A program started in the background of a script is born deaf to Ctrl-C; one in a terminal is not.
HEAR_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
PROGRAM = [sys.executable, "-u", "-c", f"{HEAR_CTRL_C}; from deltamem_agents.cli import main; main()", "chat"]
PATIENCE_SECONDS = 300.0


class Terminal:
    """A running `deltamem chat` with pipes in place of a terminal."""

    def __init__(self, arguments: list[str], folder: Path, **settings: str) -> None:
        environment = os.environ | {f"DELTAMEM_{name.upper()}": value for name, value in settings.items()}
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.output = b""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        while piece := os.read(self.process.stdout.fileno(), 4096):
            self.output += piece

    def type(self, text: str) -> None:
        """Send what a person types."""
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def wait_for(self, happened: Callable[[str], bool]) -> str:
        """Return the output once it fits; fail after a while."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened(self.text):
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)
        return self.text

    @property
    def text(self) -> str:
        """Everything printed so far."""
        return self.output.decode(errors="replace")

    def leave(self) -> int:
        """Press Ctrl-D, and return the exit status."""
        self.process.stdin.close()
        status = self.process.wait(PATIENCE_SECONDS)
        self.reader.join(PATIENCE_SECONDS)
        self.process.stdout.close()
        return status


@pytest.fixture
def options(model_folder: Path) -> list[str]:
    """Return the options that name the small random model."""
    return ["--model", str(model_folder), "--adapter", str(model_folder / "token"), "--thread", "t"]


def status_lines(text: str) -> list[str]:
    return [line[line.index("[thread") :] for line in text.splitlines() if "[thread" in line]


def test_a_thread_is_resumed_and_an_error_of_one_turn_does_not_end_the_talk(options: list[str], tmp_path: Path) -> None:
    """The second process starts where the first one ended; a message larger than the window costs one line."""
    settings = {"window_tokens": "80", "keep_tokens": "30", "max_tokens": "8"}
    first = Terminal(options, tmp_path, **settings)
    first.type("hello\n" + "word " * 200 + "\nwhat is the weather\n" + "my name is yes and you\n" * 4)
    assert first.leave() == 0
    statuses = status_lines(first.text)
    assert statuses[0] == "[thread t · window: 0 messages · absorbed: 0 messages, 0 tokens]"
    assert "absorbed: 0 messages" not in statuses[-1]
    errors = [line for line in first.text.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "window" in errors[0]
    assert "Traceback" not in first.text

    second = Terminal(options, tmp_path, **settings)
    assert second.leave() == 0
    assert status_lines(second.text) == [statuses[-1]]


def test_ctrl_c_stops_the_reply_and_not_the_program(options: list[str], tmp_path: Path) -> None:
    """After Ctrl-C during a reply, and at the prompt, the program takes the next line."""
    talk = Terminal([*options, "--db", "memory://"], tmp_path, max_tokens="3500")
    begin = len(talk.wait_for(lambda text: text.endswith("tokens]\n")))
    talk.process.send_signal(signal.SIGINT)
    begin = len(talk.wait_for(lambda text: text[begin:].endswith("Ctrl-D ends the program.\n")))
    talk.type("hello\n")
    talk.wait_for(lambda text: len(text) > begin)
    talk.process.send_signal(signal.SIGINT)
    talk.wait_for(lambda text: "[stopped]" in text[begin:])
    assert talk.process.poll() is None
    assert talk.leave() == 0
    assert "you> " not in talk.text  # no terminal, no prompt
    assert "Traceback" not in talk.text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--db", "oracle://host"], "oracle"), (["--db", "memory://", "--adapter", "/nowhere"], "/nowhere")],
)
def test_what_cannot_be_opened_is_one_line(
    options: list[str], tmp_path: Path, arguments: list[str], named: str
) -> None:
    """A wrong database or adapter ends the program with one line that names it."""
    talk = Terminal([*options, *arguments], tmp_path)
    assert talk.leave() == 1
    lines = talk.text.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert named in lines[0]


def test_a_thread_is_encrypted_with_the_key_of_the_environment(options: list[str], tmp_path: Path) -> None:
    """DELTAMEM_AES_KEY encrypts what is stored; with another key the program says so and ends, and nothing changes."""
    file = tmp_path / "threads.sqlite"
    settings = {"db": f"sqlite:///{file}", "max_tokens": "4"}
    terminal = Terminal(options, tmp_path, aes_key="0123456789abcdef", **settings)
    terminal.type("the weather is yes\n")
    terminal.wait_for(lambda text: len(status_lines(text)) == 2)
    assert terminal.leave() == 0
    before = file.read_bytes()
    assert b"weather is yes" not in before
    other = Terminal(options, tmp_path, aes_key="fedcba9876543210", **settings)
    assert other.leave() == 1
    assert "another AES key" in other.text
    assert "Traceback" not in other.text
    assert file.read_bytes() == before

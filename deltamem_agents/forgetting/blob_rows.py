"""The checkpoints of savers that keep each version of a channel once: InMemorySaver, and Postgres beside it."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from deltamem_agents.forgetting.packed import Codec, Extension
from deltamem_agents.forgetting.rows import DROPPED, Change, Moved, Stored, Write, configured

__all__ = ["MemoryRows", "Reversioned", "reversioned"]

Blob = tuple[str, str, Any]
"""Where a channel's value is kept: space, channel, version."""


class Reversioned:
    """Hold the blobs to write (DROPPED: to remove), and the versions of channels that checkpoints get instead."""

    def __init__(self) -> None:
        self.blobs: dict[Blob, Any] = {}
        self.versions: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)


def reversioned(seen: Sequence[Stored], changes: Mapping[tuple[str, str], Change]) -> Reversioned:
    """Give each value its version: two checkpoints that shared one and now differ get one each."""
    done = Reversioned()
    taken: dict[Blob, Any] = {}
    for one in seen:
        change = changes.get((one.space, one.id), Change())
        for channel, version in one.versions.items():
            before = one.values.get(channel, DROPPED)
            value = change.values.get(channel, before)
            # The number of the old version comes first, so that LangGraph counts on from it.
            number, blob = 0, (one.space, channel, version)
            while blob in taken and taken[blob] != value:
                number += 1
                blob = (one.space, channel, f"{version}.{number}")
            taken[blob] = value
            if number or value != before:
                done.blobs[blob] = value
            if number:
                done.versions[one.space, one.id][channel] = blob[2]
    return done


class MemoryRows:
    """Read and rewrite what an InMemorySaver holds."""

    def __init__(self, saver: InMemorySaver) -> None:
        """Take a saver."""
        self._saver = saver
        self._codec = Codec(saver.serde)

    def threads(self) -> list[str]:
        """Return the threads that have checkpoints."""
        return sorted(thread for thread, spaces in self._saver.storage.items() if any(spaces.values()))

    def first(self, thread: str) -> str | None:
        """Return the id of a thread's oldest checkpoint, None if it has none."""
        return min((name for found in self._saver.storage.get(thread, {}).values() for name in found), default=None)

    def load(self, thread: str) -> list[Stored]:
        """Return a thread's checkpoints, the oldest of each graph first."""
        found = []
        for space, checkpoints in sorted(self._saver.storage.get(thread, {}).items()):
            for name, (typed, metadata, parent) in sorted(checkpoints.items()):
                body = self._codec.read(typed)
                versions = body["channel_versions"]
                kept = {channel: self._saver.blobs.get((thread, space, channel, v)) for channel, v in versions.items()}
                values = {c: self._codec.read(blob) for c, blob in kept.items() if blob and blob[0] != "empty"}
                stored = self._saver.writes.get((thread, space, name), {})
                writes = tuple(
                    Write((space, name, key), channel, self._codec.read(value))
                    for key, (_, channel, value, _) in stored.items()
                )
                about = self._codec.read(metadata)
                source, given = about.get("source", ""), configured(about)
                found.append(Stored(space, name, parent, source, values, versions, writes, body, given))
        return found

    def save(self, thread: str, seen: Sequence[Stored], changes: Mapping[tuple[str, str], Change]) -> None:
        """Change checkpoints; raises Moved if the thread is not as it was seen."""
        if [(one.space, one.id, len(one.writes)) for one in self.load(thread)] != [
            (one.space, one.id, len(one.writes)) for one in seen
        ]:
            raise Moved
        done = reversioned(seen, changes)
        for (space, channel, version), value in done.blobs.items():
            typed = ("empty", b"") if value is DROPPED else self._codec.write(value)
            self._saver.blobs[thread, space, channel, version] = typed
        bodies = {(one.space, one.id): one.body for one in seen}
        for (space, name), versions in done.versions.items():
            body = bodies[space, name]
            _, metadata, parent = self._saver.storage[thread][space][name]
            changed = self._codec.write({**body, "channel_versions": {**body["channel_versions"], **versions}})
            self._saver.storage[thread][space][name] = (changed, metadata, parent)
        for (space, name), change in changes.items():
            if change.unsaid:
                changed, metadata, parent = self._saver.storage[thread][space][name]
                about = self._codec.read(metadata)
                kept = self._codec.write({key: value for key, value in about.items() if key not in change.unsaid})
                self._saver.storage[thread][space][name] = (changed, kept, parent)
            stored = self._saver.writes[thread, space, name] if change.writes else {}
            for (_, _, key), value in change.writes.items():
                if value is DROPPED:
                    stored.pop(key)
                else:
                    task, channel, _, path = stored[key]
                    stored[key] = (task, channel, self._codec.write(value), path)

    def remove(self, thread: str, checkpoints: Sequence[tuple[str, str]] | None = None) -> int:
        """Remove these checkpoints of a thread, or the whole thread; return how many went."""
        if checkpoints is None:
            count = sum(len(found) for found in self._saver.storage.get(thread, {}).values())
            self._saver.delete_thread(thread)
            return count
        for space, name in checkpoints:
            self._saver.storage[thread][space].pop(name)
            self._saver.writes.pop((thread, space, name), None)
        self._remove_unused(thread)
        return len(checkpoints)

    def copy(self, thread: str, target: str, checkpoints: Sequence[tuple[str, str]]) -> None:
        """Copy these checkpoints to another thread, with what tasks wrote after all but the last."""
        for space, name in checkpoints:
            self._saver.storage[target][space][name] = self._saver.storage[thread][space][name]
        for space, name in checkpoints[:-1]:
            self._saver.writes[target, space, name] = dict(self._saver.writes.get((thread, space, name), {}))
        for key, blob in [(key, blob) for key, blob in self._saver.blobs.items() if key[0] == thread]:
            self._saver.blobs[(target, *key[1:])] = blob
        self._remove_unused(target)

    def _remove_unused(self, thread: str) -> None:
        used = {(one.space, channel, v) for one in self.load(thread) for channel, v in one.versions.items()}
        for key in [key for key in self._saver.blobs if key[0] == thread and key[1:] not in used]:
            del self._saver.blobs[key]

    @property
    def unread(self) -> list[str]:
        """Return nothing: there is no file."""
        return []

    def overwrite(self) -> str | None:
        """Do nothing: there is no file."""
        return None

    def files(self) -> list[Path]:
        """Return nothing: there is no file."""
        return []

    def blobs(self, without: Collection[str] = ()) -> list[bytes]:
        """Return the bytes of every stored value and of all metadata, but for those of some threads."""
        blobs = [blob for key, blob in self._saver.blobs.items() if key[0] not in without]
        kept = [stored for key, stored in self._saver.writes.items() if key[0] not in without]
        spaces = [
            space for thread, found in self._saver.storage.items() if thread not in without for space in found.values()
        ]
        about = [metadata for space in spaces for _, metadata, _ in space.values()]
        return [data for _, data in (*blobs, *about, *(value for stored in kept for _, _, value, _ in stored.values()))]

    def message(self, extension: Extension) -> BaseMessage:
        """Make the message that an extension holds."""
        return self._codec.message(extension)

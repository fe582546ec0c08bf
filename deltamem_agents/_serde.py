"""Redact and encrypt what LangGraph's savers write."""

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import EXT_NUMPY_ARRAY, JsonPlusSerializer

from backbone import ConfigError
from deltamem_agents.installing import install_extra
from deltamem_agents.policy import redact_named, redact_secrets

__all__ = ["KEY_HINT", "CheckpointSerializer", "encrypting", "redacting"]

KEY_HINT = "open_checkpointer(url, aes_key=…), on the command line DELTAMEM_AES_KEY"

_OPTIONS = ormsgpack.OPT_NON_STR_KEYS | ormsgpack.OPT_REPLACE_SURROGATES
# A working memory that travels as base64 text: b64 of its magic number. Random letters must not be taken for a token.
_MEMORY_TEXT = re.compile(r"REVMVEFNV0[A-Za-z0-9+/]*={0,2}")
_SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|credential|auth", re.IGNORECASE)
# Of lists: "pass" names tests more often than passwords, and "auth" authors.
_SECRET_NAMES = re.compile(r"passw|pwd|secret|token|key|credential", re.IGNORECASE)
_MAX_CLEAN = 65_536
# Text and terminal colours have no other control characters; numbers, such as a working memory's, do.
_BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
# The keys by which a checkpoint is found again; run metadata repeats the others.
_ADDRESS = frozenset({"thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map"})


class CheckpointSerializer(JsonPlusSerializer):
    """Serialise as LangGraph does in strict mode; redact every text on the way if asked to."""

    def __init__(self, *, redacts: bool) -> None:
        """Choose whether the secrets of every string are replaced, and of bytes that are text."""
        super().__init__(allowed_msgpack_modules=None)
        self.redacts = redacts
        # A checkpoint holds the whole history again at each step: strings found clean are known by their digests.
        self._clean: set[bytes] = set()

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Return LangGraph's tag and bytes, redacted.

        The bytes that LangGraph makes are what is redacted, so no type of value escapes: messages, tool arguments,
        dataclasses, models, interrupts and errors are all strings by then.
        """
        kind, data = super().dumps_typed(obj)
        if not self.redacts:
            return kind, data
        return kind, self._redact_packed(data) if kind == "msgpack" else self.redact(data)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return the value; raises ConfigError if it is encrypted, since then a key was needed."""
        if "+" in data[0]:
            raise ConfigError(f"the checkpoint is encrypted ({data[0]}); give the key it was written with: {KEY_HINT}")
        return super().loads_typed(data)

    def redact(self, value: Any) -> Any:
        """Return a value of plain data with every text redacted, keys of mappings included."""
        if isinstance(value, str):
            return self._redact_text(value)
        if isinstance(value, bytes):
            return _in_bytes(value, self._redact_text)
        if isinstance(value, Mapping):
            return {self.redact(name): self._redact_item(name, item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.redact(item) for item in value)
        return value

    def _redact_packed(self, data: bytes) -> bytes:
        value = ormsgpack.unpackb(data, ext_hook=self._redact_extension, option=ormsgpack.OPT_NON_STR_KEYS)
        return ormsgpack.packb(self.redact(value), option=_OPTIONS)

    def _redact_extension(self, code: int, data: bytes) -> ormsgpack.Ext:
        # An array of numbers is raw memory; every other extension of LangGraph is msgpack inside msgpack.
        return ormsgpack.Ext(code, data if code == EXT_NUMPY_ARRAY else self._redact_packed(data))

    def _redact_item(self, name: object, item: Any) -> Any:
        """Redact what stands under a name; the name may say that it is a secret."""
        if isinstance(name, str) and isinstance(item, str | bytes) and _SECRET_NAME.search(name):
            redact = partial(redact_named, name)
            return redact(item) if isinstance(item, str) else _in_bytes(item, redact)
        if isinstance(name, str) and isinstance(item, (list, tuple)) and _SECRET_NAMES.search(name):
            return type(item)(self._redact_item(name, part) for part in item)
        return self.redact(item)

    def _redact_text(self, text: str) -> str:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._clean or _MEMORY_TEXT.fullmatch(text):
            return text
        redaction = redact_secrets(text)
        if not redaction.findings:
            if len(self._clean) >= _MAX_CLEAN:
                self._clean.clear()
            self._clean.add(digest)
        return redaction.text


def _in_bytes(data: bytes, redact: Callable[[str], str]) -> bytes:
    """Redact bytes that are text, such as of a file or a program's output; others stay as they are."""
    if _BINARY.search(data):
        return data
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    return redact(text).encode()


def encrypting(serde: CheckpointSerializer, key: str | bytes) -> EncryptedSerializer:
    """Wrap a serializer in LangGraph's AES (EAX mode: what was altered, or needs another key, is an error).

    key: 16, 24 or 32 bytes, or text that has so many. Raises ConfigError for another length, or without pycryptodome.
    """
    raw = key.encode() if isinstance(key, str) else key
    if len(raw) not in {16, 24, 32}:
        raise ConfigError(f"an AES key has 16, 24 or 32 bytes, got {len(raw)}; make one with: openssl rand -hex 16")
    try:
        inner = EncryptedSerializer.from_pycryptodome_aes(serde, key=raw)
    except ImportError as error:
        raise ConfigError(f"an aes_key needs pycryptodome: {install_extra('aes')} ({error})") from error
    return EncryptedSerializer(_Cipher(inner.cipher), serde)


class _Cipher(CipherProtocol):
    """Say what is wrong when LangGraph's cipher refuses."""

    def __init__(self, cipher: CipherProtocol) -> None:
        self._cipher = cipher

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return self._cipher.encrypt(plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        try:
            return self._cipher.decrypt(ciphername, ciphertext)
        except (ValueError, AssertionError) as error:
            raise ConfigError(
                "the checkpoint cannot be decrypted: it was written with another AES key, or altered; nothing has been "
                f"changed. Give the key it was written with: {KEY_HINT}"
            ) from error


def redacting(saver: type[BaseCheckpointSaver[Any]]) -> type[BaseCheckpointSaver[Any]]:
    """Return the saver's class, with what it stores beside its serializer redacted too.

    Savers write run metadata as JSON, and Postgres also the channels that are plain text. The thread's id and the other
    keys by which a checkpoint is found stay.
    """

    def put(
        self: BaseCheckpointSaver[Any],
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        clean = _redacted_arguments(self, config, checkpoint, metadata)
        return cast("Callable[..., RunnableConfig]", saver.put)(self, *clean, new_versions)

    async def aput(
        self: BaseCheckpointSaver[Any],
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        clean = _redacted_arguments(self, config, checkpoint, metadata)
        return await saver.aput(self, *clean, new_versions)

    return type(f"Redacting{saver.__name__}", (saver,), {"put": put, "aput": aput})


def _redacted_arguments(
    saver: BaseCheckpointSaver[Any], config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
) -> tuple[RunnableConfig, Checkpoint, CheckpointMetadata]:
    """Return copies of what is written, without secrets; what the graph holds is not touched."""
    redact = _serializer_of(saver).redact
    named = config.get("configurable", {})
    clean_config: dict[str, Any] = {
        **config,
        "metadata": redact(config.get("metadata") or {}),
        "configurable": {key: value if key in _ADDRESS else _plain(redact, value) for key, value in named.items()},
    }
    values = {name: _plain(redact, value) for name, value in checkpoint["channel_values"].items()}
    clean_checkpoint = {**checkpoint, "channel_values": values}
    return (
        cast("RunnableConfig", clean_config),
        cast("Checkpoint", clean_checkpoint),
        cast("CheckpointMetadata", redact(metadata)),
    )


def _serializer_of(saver: BaseCheckpointSaver[Any]) -> CheckpointSerializer:
    """Return the redacting serializer of a saver, also from inside an encrypting one."""
    return cast("CheckpointSerializer", getattr(saver.serde, "serde", saver.serde))


def _plain(redact: Callable[[Any], Any], value: Any) -> Any:
    """Redact text; whatever else a channel holds passes the serializer."""
    return redact(value) if isinstance(value, str) else value

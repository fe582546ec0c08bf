"""Take any LangChain embeddings, give them a name, and check what they return."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from langchain.embeddings import init_embeddings
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from backbone import ConfigError
from deltamem_agents.archive.errors import EmbeddingError

__all__ = ["Embedder", "resolve_embeddings"]

Vectors = NDArray[np.float32]

_TRIES = 3  # failures in a row after which the model is asked for a text that no model refuses
_HARMLESS = "text"


@dataclass(frozen=True, slots=True)
class Embedder:
    """Turn texts into vectors that can be compared.

    `name` says which model made them: vectors of two models are never mixed.
    """

    name: str
    embeddings: Embeddings

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Return vectors [len(texts), dims]; raises EmbeddingError if the model fails, or they cannot be compared."""
        with self._failing():
            return _checked(self.embeddings.embed_documents(list(texts)), len(texts), self.name)

    def embed_entries(self, texts: Mapping[str, Sequence[str]]) -> tuple[dict[str, Vectors], dict[str, EmbeddingError]]:
        """Return the vectors of those entries that the model takes, and what it said of the others.

        All are embedded at once or, if that fails, one by one. Raises EmbeddingError if the model refuses every text.
        """
        try:
            return self._embedded(texts), {}
        except EmbeddingError:
            self.embed_texts([_HARMLESS])
        found: dict[str, Vectors] = {}
        refused: dict[str, EmbeddingError] = {}
        failed = 0
        for entry, parts in texts.items():
            try:
                found |= self._embedded({entry: parts})
                failed = 0
            except EmbeddingError as error:
                failed += 1
                if failed % _TRIES == 0:
                    self.embed_texts([_HARMLESS])
                refused[entry] = error
        return found, refused

    def _embedded(self, texts: Mapping[str, Sequence[str]]) -> dict[str, Vectors]:
        vectors = self.embed_texts([part for parts in texts.values() for part in parts])
        found, start = {}, 0
        for entry, parts in texts.items():
            found[entry] = vectors[start : start + len(parts)]
            start += len(parts)
        return found

    def embed_query(self, text: str) -> Vectors:
        """Return the vector [dims] of a question; raises EmbeddingError as `embed_texts` does."""
        with self._failing():
            vector: Vectors = _checked([self.embeddings.embed_query(text)], 1, self.name)[0]
        return vector

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except EmbeddingError:
            raise
        except Exception as error:  # every provider has errors of its own
            raise EmbeddingError(f"{self.name} failed: {error}") from error


def resolve_embeddings(embeddings: Embeddings | str | None) -> Embedder | None:
    """Return an embedder for LangChain embeddings, for "provider:model" or "minilm", or for what is installed.

    None is "minilm", all-MiniLM-L6-v2, if that extra is installed, and otherwise no embedder. However a model is asked
    for, its embedder has the same name. Raises ConfigError for a provider that is unknown or not installed.
    """
    if isinstance(embeddings, str):
        embeddings = _initialised(embeddings)
    elif embeddings is None:
        # Loading torch takes seconds, so it is asked for only where MiniLM can be used.
        from deltamem_agents.archive.minilm import MiniLMEmbeddings, minilm_folder  # noqa: PLC0415

        if minilm_folder() is None:
            return None
        embeddings = MiniLMEmbeddings()
    if not isinstance(embeddings, Embeddings):
        raise ConfigError(f"embeddings are LangChain Embeddings or 'provider:model'; got {type(embeddings).__name__}")
    return Embedder(_name_of(embeddings), embeddings)


def _initialised(name: str) -> Embeddings:
    if name == "minilm":
        from deltamem_agents.archive.minilm import MiniLMEmbeddings  # noqa: PLC0415 # as above

        return MiniLMEmbeddings()
    try:
        made = init_embeddings(name)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"embeddings {name!r} cannot be made: {error}") from error
    if not isinstance(made, Embeddings):
        raise ConfigError(f"embeddings {name!r} are no LangChain Embeddings but {type(made).__name__}")
    return made


def _name_of(embeddings: Embeddings) -> str:
    """Return the class, and the model if the class says which it is; of MiniLM here, the model alone."""
    kind = type(embeddings)
    models = (getattr(embeddings, attribute, None) for attribute in ("model", "model_name", "model_id"))
    model = next((model for model in models if isinstance(model, str)), None)
    if model is not None and kind.__module__ == "deltamem_agents.archive.minilm":
        return model
    named = f"{kind.__module__}.{kind.__qualname__}"
    return named if model is None else f"{named}:{model}"


def _checked(found: Sequence[Sequence[float]], count: int, name: str) -> Vectors:
    if len(found) != count or len({len(vector) for vector in found}) > 1:
        lengths = sorted({len(vector) for vector in found})
        raise EmbeddingError(f"{name} was asked for {count} vectors of one length; got {len(found)} of {lengths}")
    vectors = np.asarray(found, np.float32)
    if not np.isfinite(vectors).all():
        raise EmbeddingError(f"{name} returned a vector with NaN or infinity")
    return vectors

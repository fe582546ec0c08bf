"""Search a conversation the plain way, for comparison: `langchain_chroma.Chroma` with its defaults."""

from collections.abc import Sequence
from pathlib import Path

from langchain_core.embeddings import Embeddings

from backbone import ConfigError
from deltamem_agents.archive.chroma import open_client
from deltamem_agents.installing import install_extra

__all__ = ["RememberedEmbeddings", "best_by_chroma"]


class RememberedEmbeddings(Embeddings):
    """Embed each text once, however many searches are compared."""

    def __init__(self, inner: Embeddings) -> None:
        """Take the embeddings that do the work."""
        self._inner = inner
        self._known: dict[str, list[float]] = {}
        self._asked: dict[str, list[float]] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self._inner.embed_documents(new), strict=True))
        return [self._known[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question, which some models make in another way than that of a text."""
        if text not in self._asked:
            self._asked[text] = self._inner.embed_query(text)
        return self._asked[text]


def best_by_chroma(
    folder: Path, texts: Sequence[str], questions: Sequence[str], embeddings: Embeddings, limit: int
) -> list[list[int]]:
    """Return the numbers of the best texts for each question, the best first, from a new index in an empty folder.

    Raises ConfigError if langchain-chroma is not installed.
    """
    try:
        from langchain_chroma import Chroma  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ConfigError(
            f"the row of langchain_chroma needs that package: {install_extra('compare')} ({error})"
        ) from error
    client = open_client(str(folder))
    try:
        plain = Chroma(client=client, embedding_function=embeddings)
        plain.add_texts(texts, ids=[str(number) for number in range(len(texts))])
        found = [plain.similarity_search(question, k=limit) for question in questions]
    finally:
        client.close()  # type: ignore[attr-defined] # missing from the interface, present in every client
    return [[int(document.id or -1) for document in documents] for documents in found]

"""Embeddings: what they return is checked, and a model has one name."""

import pytest

from backbone import ConfigError
from deltamem_agents.archive.embeddings import Embedder, resolve_embeddings
from deltamem_agents.archive.errors import EmbeddingError
from deltamem_agents.archive.minilm import MiniLMEmbeddings
from tests.deltamem_agents.archive.conftest import Model


def test_embeddings_are_checked() -> None:
    """Too few vectors, vectors of several sizes, and NaN are errors that name the model."""
    texts = ["a", "b"]
    for wrong in ([[1.0]], [[1.0], [1.0, 2.0]], [[float("nan")], [1.0]]):
        model = Model()
        model.embed_documents = lambda texts, wrong=wrong: wrong  # type: ignore[method-assign, misc]
        with pytest.raises(EmbeddingError, match="test"):
            Embedder("test", model).embed_texts(texts)


def test_embeddings_are_named_by_class_and_model(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name tells two models of one provider apart, however it is asked for; what is no model is refused."""
    named = resolve_embeddings(model)
    assert named is not None
    assert named.name.endswith(".Model:test")
    with monkeypatch.context() as patched:
        patched.setattr("deltamem_agents.archive.embeddings.init_embeddings", lambda name: model)
        assert resolve_embeddings("p:test") == named
    by_name, chosen, default = (resolve_embeddings(one) for one in ("minilm", MiniLMEmbeddings(), None))
    assert by_name is not None
    assert chosen is not None
    assert default is not None
    assert by_name.name == chosen.name == default.name == "sentence-transformers/all-MiniLM-L6-v2"
    with pytest.raises(ConfigError, match="'nobody:nothing' cannot be made"):
        resolve_embeddings("nobody:nothing")
    with pytest.raises(ConfigError, match="got int"):
        resolve_embeddings(3)  # type: ignore[arg-type]

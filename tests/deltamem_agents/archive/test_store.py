"""`MemoryStore`: LangGraph's store interface, recall with filters, and namespaces that stay apart."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests
from langgraph.store.base import GetOp, InvalidNamespaceError, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore
from sqlalchemy import select

from backbone import ConfigError
from deltamem_agents import MemoryStore
from deltamem_agents.archive.errors import RecordInvalidError
from deltamem_agents.archive.filters import RecordFilter
from deltamem_agents.archive.records import Trust
from deltamem_agents.archive.retriever import MemoryRetriever
from deltamem_agents.archive.statistics import statistics
from deltamem_agents.archive.tables import items
from deltamem_agents.archive.writes import NewRecord

DIMS = 8
WHOLE = 50  # more than the namespaces and keys below can hold
NAMESPACES = [("a",), ("ab",), ("a%",), ("a_b",), ("A",), ("ä",), ("a", "b"), ("a", "b", "'c"), ('a","b',)]
KEYS = ["k", "K", "k%"]
TEXTS = ["red apple", "blue sky", "green grass", "'; DROP TABLE archive_items; --"]
HOSTILE: list[dict[str, Any]] = [
    {"namespace": "a"},
    {"text": {"$ne": "nothing"}},
    {"n": {"$gte": 0}},
    {"' OR 1=1 --": None},
    {"$or": [{"n": 1}, {"n": {"$ne": 1}}]},
]
filters = st.sampled_from(
    [
        None,
        {"n": 1},
        {"n": {"$gt": 1}},
        {"n": {"$lte": 2, "$ne": 0}},
        {"kind": "blue sky"},
        {"kind": {"$eq": "red apple"}},
    ]
)


def put_op(namespace: tuple[str, ...], key: str, kind: str | None, n: int) -> PutOp:
    """Return a write, or a deletion; its text is its own, since InMemoryStore refuses one text twice in a batch."""
    value = {"text": f"{kind} of {namespace} {key}", "kind": kind, "n": n, "deep": {"even": n % 2 == 0}}
    return PutOp(namespace, key, value if kind else None)


puts = st.builds(
    put_op, st.sampled_from(NAMESPACES), st.sampled_from(KEYS), st.sampled_from([None, *TEXTS]), st.integers(0, 3)
)
gets = st.builds(GetOp, st.sampled_from(NAMESPACES), st.sampled_from(KEYS), st.just(False))
searches = st.builds(
    SearchOp,
    st.sampled_from([(), *NAMESPACES]),
    filter=filters,
    limit=st.sampled_from([1, 3, 40]),
    offset=st.sampled_from([0, 1, 4]),
    refresh_ttl=st.booleans(),
    query=st.sampled_from([None, "apple", "the sky"]),
)
batches = st.lists(st.lists(st.one_of(puts, puts, gets, searches), max_size=6), min_size=1, max_size=4)


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[MemoryStore]:
    """Open an empty store with an index, in each kind of database."""
    made = MemoryStore.from_url(url, tmp_path / "index", DeterministicFakeEmbedding(size=DIMS), fields=["text"])
    with made as opened:
        yield opened


@pytest.fixture
def plain(sqlite_url: str) -> Iterator[MemoryStore]:
    """Open an empty store that searches words alone."""
    with MemoryStore.from_url(sqlite_url) as opened:
        yield opened


def answer(result: Any, *, ordered: bool) -> Any:
    """Return what stores must agree on: everything but times, and the order only where a question makes one."""
    if not isinstance(result, list):
        return None if result is None else (result.namespace, result.key, result.value)
    found = [
        (item.namespace, item.key, item.value, None if item.score is None else round(item.score, 4)) for item in result
    ]
    scores = [score for *_, score in found]
    assert not ordered or scores == sorted(scores, reverse=True)
    return sorted(found, key=str)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=batches)
def test_answers_are_those_of_langgraphs_own_stores(store: MemoryStore, batches: list[list[Any]]) -> None:
    """Any operations in any order give what InMemoryStore and SqliteStore give, item for item and score for score.

    A page has as many items as theirs, and is that part of the whole answer.
    SqliteStore is asked without questions: its vectors need an extension that not every Python can load.
    """
    store.batch([PutOp(namespace, key, None) for namespace in store.list_namespaces(limit=100) for key in KEYS])
    memory = InMemoryStore(index={"dims": DIMS, "embed": DeterministicFakeEmbedding(size=DIMS), "fields": ["text"]})
    with SqliteStore.from_conn_string(":memory:") as sqlite:
        sqlite.setup()
        for drawn in batches:
            paged = [op for op in drawn if isinstance(op, SearchOp)]
            ops = [*drawn, *(op._replace(limit=WHOLE, offset=0) for op in paged)]
            found = [one.batch(ops) for one in (store, memory, sqlite)]
            whole: Any = iter(found[0][len(drawn) :])
            for op, *answers in zip(ops, *found, strict=True):
                asked = isinstance(op, SearchOp) and op.query is not None
                if isinstance(op, SearchOp) and op.limit != WHOLE:  # which page an item is on is each store's own
                    assert len({len(result) for result in answers}) == 1, op
                    assert answers[0] == next(whole)[op.offset : op.offset + op.limit], op
                    continue
                ours, theirs = (answer(result, ordered=asked) for result in answers[:2])
                others = answer(answers[2], ordered=False)  # without an index its scores are None
                assert ours == theirs, op
                assert asked or ours == others, op
        for chosen in ({}, {"prefix": ("a", "*"), "max_depth": 2}, {"suffix": ("b",)}):
            held: Any = {"limit": 100, **chosen}
            assert store.list_namespaces(**held) == sorted(sqlite.list_namespaces(**held))


def test_no_filter_leads_out_of_a_namespace(store: MemoryStore) -> None:
    """Whatever a user's filter says, a search sees what lies below its prefix and nothing else."""
    for namespace in NAMESPACES:
        store.put(namespace, "k", {"text": f"apple of {namespace}", "n": 1})
    for query in (None, "apple"):
        for namespace, hostile in product(NAMESPACES, HOSTILE):
            found = store.search(namespace, query=query, filter=hostile, limit=100)
            assert {item.namespace[: len(namespace)] for item in found} <= {namespace}
        assert len(store.search((), query=query, limit=100)) == len(NAMESPACES)
    with pytest.raises(RecordInvalidError, match=r"operators are \$eq"):
        store.search(("a",), filter={"n": {"$where": "1"}})


def test_recall_stays_in_its_namespace(store: MemoryStore) -> None:
    """Records of one namespace are never shown in another, by words or by meaning, with any filter."""
    for namespace in NAMESPACES:
        store.records.add(namespace, NewRecord(f"apple of {namespace}", source="' OR 1=1", tags=('"]',)))
    store.flush()
    for namespace in NAMESPACES:
        for where in (RecordFilter(), RecordFilter(source="' OR 1=1"), RecordFilter(tags=('"]',))):
            assert {hit.record.namespace for hit in store.recall(namespace, "apple", where=where)} == {namespace}
    assert store.recall(("a", "b", "c"), "apple") == []


def test_recall_narrows_by_filters(store: MemoryStore) -> None:
    """Filters are applied to what is found, and the search looks further until there are enough records."""
    said = [
        NewRecord(f"apple {n}", f"t{n % 2}", str(n), source="tool:x" if n == 77 else "user", trust=Trust(n % 3))
        for n in range(120)
    ]
    store.records.add_all(("u",), said)
    store.flush()
    assert [hit.record.text for hit in store.recall(("u",), "apple", where=RecordFilter(source="tool:x"))] == [
        "apple 77"
    ]
    high = store.recall(("u",), "apple", where=RecordFilter(min_trust=Trust.HIGH, thread="t1"), limit=100)
    assert {hit.record.text for hit in high} == {f"apple {n}" for n in range(120) if n % 3 == 2 and n % 2}
    assert [hit.score for hit in high] == sorted((hit.score for hit in high), reverse=True)


def test_a_neighbour_helps_to_find_an_answer(plain: MemoryStore) -> None:
    """The turn after the one that has the question's words is found with it, and one far from it is not."""
    texts = ["Which colour do you want for the kitchen?", "Teal, please.", "Fine.", "And the weather?", "Rain."]
    plain.records.add_all(("u",), [NewRecord(text, "t", str(n)) for n, text in enumerate(texts)])
    found = [hit.record.text for hit in plain.recall(("u",), "kitchen colour")]
    assert found[:2] == texts[:2]
    assert "Rain." not in found


def test_a_reranker_has_the_last_word(sqlite_url: str) -> None:
    """A cross-encoder orders the candidates anew; without one, the fused score does."""

    class Shortest(BaseCrossEncoder):
        def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
            """Prefer short texts."""
            return [-float(len(text)) for _, text in text_pairs]

    with MemoryStore.from_url(sqlite_url, reranker=Shortest()) as store:
        store.records.add_all(("u",), [NewRecord("apple apple apple apple"), NewRecord("an apple in a long text")])
        store.records.add(("u",), NewRecord("apple"))
        assert [hit.record.text for hit in store.recall(("u",), "apple", limit=1)] == ["apple"]


def test_words_are_searched_without_an_index(plain: MemoryStore) -> None:
    """Items are ranked by BM25, the rest follows without a score, and an item can be kept out of search."""
    plain.put(("a",), "1", {"text": "blue sky"})
    plain.put(("a",), "2", {"text": "red apple"})
    plain.put(("a",), "3", {"text": "hidden apple"}, index=False)
    found = plain.search(("a",), query="apples")
    assert [(item.key, item.score is None) for item in found] == [("2", False), ("3", True), ("1", True)]
    assert [item.key for item in plain.search(("a",), query="apples", limit=1, offset=1)] == ["3"]


def move_end(store: MemoryStore, key: str, minutes: float) -> None:
    """Let an item expire that many minutes from now, instead of waiting."""
    end = datetime.now(UTC) + timedelta(minutes=minutes)
    with store.engine.begin() as connection:
        connection.execute(items.update().where(items.c.key == key).values(expires=end))


def test_items_expire_and_reading_refreshes_them(plain: MemoryStore) -> None:
    """A time to live counts in minutes from the last write or read; the sweep erases what has expired."""
    for key in ("read", "searched", "unread"):
        plain.put(("a",), key, {"key": key}, ttl=60)
    plain.put(("a",), "kept", {"key": "kept"})
    for key in ("read", "searched", "unread"):
        move_end(plain, key, 1)
    assert plain.get(("a",), "read") is not None
    assert len(plain.search(("a",), filter={"key": "searched"})) == 1
    assert plain.get(("a",), "unread", refresh_ttl=False) is not None
    with plain.engine.connect() as connection:
        ends = {row.key: row.expires for row in connection.execute(select(items.c.key, items.c.expires))}
    later = datetime.now(UTC) + timedelta(minutes=30)
    assert {key for key, end in ends.items() if end is not None and end > later} == {"read", "searched"}
    assert ends["kept"] is None
    move_end(plain, "unread", -1)
    assert plain.get(("a",), "unread") is None
    assert {item.key for item in plain.search(("a",))} == {"read", "searched", "kept"}
    assert (plain.sweep_ttl(), plain.sweep_ttl()) == (1, 0)


def test_any_number_of_items_is_found_and_refreshed_at_once(plain: MemoryStore) -> None:
    """A search may ask for more items than SQL takes conditions, and begins the times to live of all anew."""
    many = 1_100
    plain.batch([PutOp(("a", str(n % 7)), f"k{n}", {"n": n}, ttl=60 if n % 2 else None) for n in range(many)])
    with plain.engine.begin() as connection:
        soon = datetime.now(UTC) + timedelta(minutes=1)
        connection.execute(items.update().where(items.c.ttl_minutes.is_not(None)).values(expires=soon))
    assert len(plain.search(("a",), limit=many)) == many
    with plain.engine.connect() as connection:
        ends = connection.execute(select(items.c.expires).where(items.c.expires.is_not(None))).scalars().all()
    assert len(ends) == many // 2
    assert min(ends) > datetime.now(UTC) + timedelta(minutes=30)


def test_default_times_to_live_are_taken_from_the_configuration(sqlite_url: str) -> None:
    """Items live as long as `default_ttl` says, and a sweep that is due happens by itself."""
    ttl: Any = {"default_ttl": 60, "sweep_interval_minutes": 0}
    with MemoryStore.from_url(sqlite_url, ttl=ttl) as store:
        store.put(("a",), "soon", {"x": 1})
        store.put(("a",), "never", {"x": 1}, ttl=None)
        move_end(store, "soon", -1)
        assert [item.key for item in store.search(("a",))] == ["never"]
        assert store.sweep_ttl() == 0


def test_an_item_keeps_its_creation_time(plain: MemoryStore) -> None:
    """A second write changes the value and the time of the update, and nothing else."""
    plain.put(("a",), "k", {"x": 1})
    first = plain.get(("a",), "k")
    plain.put(("a",), "k", {"x": [1, {"y": "ü"}]})
    second = plain.get(("a",), "k")
    assert first is not None
    assert second is not None
    assert (second.created_at, second.value) == (first.created_at, {"x": [1, {"y": "ü"}]})
    assert second.updated_at > first.updated_at


def test_writers_readers_and_the_sweep_never_wait_for_each_other_in_a_circle(postgres_url: str) -> None:
    """Batches over several namespaces run beside sweeps and refreshing searches, and Postgres finds no deadlock."""
    names = [("b",), ("ab",), ("a", "b"), ("a",)]  # their spaces are numbered in this order

    def write(store: MemoryStore, writer: int) -> None:
        for n in range(40):
            store.batch([PutOp(name, f"{writer} {n}", {"n": n}, ttl=0.0001) for name in names])

    def read(store: MemoryStore, reader: int) -> None:
        for n in range(40):
            store.batch([SearchOp((), limit=100, offset=reader + n)])
            store.sweep_ttl()

    with MemoryStore.from_url(postgres_url) as store, ThreadPoolExecutor(4) as pool:
        for name in names:
            store.put(name, "kept", {"n": 0}, ttl=60)
        for job in [pool.submit(work, store, n) for n in range(2) for work in (write, read)]:
            job.result()
        time.sleep(0.01)
        store.sweep_ttl()
        assert {item.key for item in store.search((), limit=100)} == {"kept"}
        assert store.search(("a",), query="n")[0].key == "kept"


async def test_the_store_works_asynchronously(url: str, tmp_path: Path) -> None:
    """`async with` opens it, and concurrent writers and readers share it."""
    made = MemoryStore.from_url(url, tmp_path / "index", DeterministicFakeEmbedding(size=DIMS))
    async with made as store:
        await asyncio.gather(*(store.aput(("a",), f"k{n}", {"text": f"text {n}"}) for n in range(8)))
        assert len(await store.asearch(("a",), query="text 3")) == 8
        store.records.add(("u",), NewRecord("an apple"))
        assert [hit.record.text for hit in await store.arecall(("u",), "apple")] == ["an apple"]


def test_a_deleted_item_is_in_no_file(sqlite_url: str, tmp_path: Path) -> None:
    """Overwritten and deleted values leave no bytes in the database or its log."""
    with MemoryStore.from_url(sqlite_url) as store:
        store.put(("a",), "k", {"text": "canaryone"})
        store.put(("a",), "k", {"text": "canarytwo"})
        store.delete(("a",), "k")
        assert not any(b"canary" in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (lambda store: store.put(("a.b",), "k", {}), InvalidNamespaceError),
        (lambda store: store.put(("a",), "k\0", {}), RecordInvalidError),
        (lambda store: store.put(("a",), "k" * 1025, {}), RecordInvalidError),
        (lambda store: store.put(("a",), "k", {"x": object()}), RecordInvalidError),
        (lambda store: store.batch([PutOp(("",), "k", {})]), InvalidNamespaceError),
        (lambda store: store.recall((), "x"), RecordInvalidError),
        (lambda store: store.batch([object()]), ConfigError),
    ],
    ids=["label", "nul", "long key", "no json", "empty label", "no namespace", "no operation"],
)
def test_what_cannot_be_stored_or_asked_is_refused(
    plain: MemoryStore, bad: Callable[..., Any], error: type[Exception]
) -> None:
    """The store says what is wrong and stays as it was."""
    with pytest.raises(error):
        bad(plain)
    assert plain.list_namespaces() == []


def test_namespaces_are_listed_by_conditions(plain: MemoryStore) -> None:
    """Prefixes, suffixes, wildcards, depth and paging choose among the namespaces that hold something."""
    for namespace in (("a", "b", "c"), ("a", "x", "c"), ("b",), ("a", "b", "d")):
        plain.put(namespace, "k", {})

    def names(*conditions: MatchCondition, **options: Any) -> list[tuple[str, ...]]:
        (found,) = plain.batch([ListNamespacesOp(conditions, **options)])
        return found  # type: ignore[return-value]

    assert names(MatchCondition("prefix", ("a", "*", "c"))) == [("a", "b", "c"), ("a", "x", "c")]
    assert names(MatchCondition("suffix", ("c",)), MatchCondition("prefix", ("a", "b"))) == [("a", "b", "c")]
    assert names(max_depth=2) == [("a", "b"), ("a", "x"), ("b",)]
    assert names(max_depth=1, offset=1) == [("b",)]
    assert names(MatchCondition("suffix", ("a", "b", "c", "d"))) == []


def test_the_size_of_a_database_is_that_of_its_own_files(sqlite_url: str, tmp_path: Path) -> None:
    """A file whose name only begins alike is not counted."""
    with MemoryStore.from_url(sqlite_url) as store:
        store.put(("a",), "k", {"x": 1})
    size = statistics(sqlite_url, None)["bytes_on_disk"]
    (tmp_path / "archive.sqlite.old").write_bytes(bytes(10**6))
    assert statistics(sqlite_url, None)["bytes_on_disk"] == size


def test_embeddings_need_an_index(sqlite_url: str) -> None:
    """What cannot work is refused when the store is named."""
    with pytest.raises(ConfigError, match="give `index` as well"):
        MemoryStore.from_url(sqlite_url, embeddings=DeterministicFakeEmbedding(size=DIMS))


class TestRetriever(RetrieversIntegrationTests):
    """LangChain's own tests of retrievers, on a store that searches words."""

    @pytest.fixture(autouse=True)
    def _filled(self, plain: MemoryStore) -> None:
        plain.records.add_all(("u",), [NewRecord(f"apple number {n}", "t", str(n)) for n in range(5)])
        self._store = plain

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        """Name the class under test."""
        return MemoryRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        """Give it a store and a namespace."""
        return {"store": self._store, "namespace": ("u",)}

    @property
    def retriever_query_example(self) -> str:
        """Ask for what every record has."""
        return "apple"

"""What the API does, through every kind of client."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import cairn
import numpy as np
import pytest
from cairn import (
    Cap,
    Chunking,
    Client,
    Decay,
    Document,
    Field,
    Filter,
    Flat,
    Hnsw,
    Ivf,
    Hybrid,
    Leg,
    Mmr,
    NearDuplicates,
    Nearest,
    Point,
    Prefetch,
    Provenance,
    Query,
    Ranking,
    RecallEstimate,
    Rrf,
    Schema,
    Sparse,
    SparseSpec,
    SparseVector,
    Text,
    TextField,
    Turn,
    VectorSpec,
    Weighted,
    has_document,
    has_id,
)

RAFT = "# Raft\n\n## Election\n\nA follower that hears from no leader within its election timeout becomes a candidate."
TEA = "Green tea is brewed with water of 70 to 80 degrees."


@pytest.fixture
def notes(client: Any, name: str) -> str:
    client.collections.create(name)
    put = client.documents.put(
        name,
        [
            Document("raft.md", RAFT, format="markdown", source="docs/raft.md", metadata={"topic": "consensus", "year": 2014}),
            {"id": "tea.md", "text": TEA, "metadata": {"topic": "kitchen"}},
        ],
    )
    assert [r.id for r in put.results] == ["raft.md", "tea.md"]
    return name


@pytest.fixture
def vectors(client: Any, name: str) -> str:
    schema = Schema(
        vectors={"a": VectorSpec(3, "euclid", Flat()), "b": VectorSpec(2, index=Hnsw(m=8)), "c": VectorSpec(4, index=Ivf(8))},
        fields={"lang": "keyword", "title": TextField("german"), "n": {"type": "integer"}},
        shards=2,
        chunking=Chunking(max_tokens=64),
    )
    client.collections.create(name, schema)
    client.points.upsert(
        name,
        [
            Point("p1", vectors={"a": [1, 0, 0], "b": [1, 0]}, payload={"lang": "en", "n": 1, "title": "Katzen"}),
            Point("p2", vectors={"a": [0, 1, 0]}, payload={"lang": "de", "n": 2, "tags": ["x", "y"]}),
            Point(3, vectors={"b": np.array([0, 1])}, payload={"big": 2**63 + 1, "deep": {"list": [1, None, 2.5, "s"]}}),
        ],
    )
    return name


# ---- collections and operations ----


def test_a_collection_says_its_schema_and_state(client: Any, vectors: str) -> None:
    made = client.collections.get(vectors)
    assert (made.points, made.schema["shards"], made.schema["chunking"]["max_tokens"]) == (3, 2, 64)
    assert made.schema["vectors"]["b"]["index"] == {"type": "hnsw", "m": 8, "ef_construction": 128}
    assert made.schema["vectors"]["c"]["index"] == {"type": "ivf", "nlist": 8}
    assert made.schema["vectors"]["a"]["metric"] == "euclid"
    assert made.schema["fields"]["title"]["analyzer"]["language"] == "german"
    assert vectors in client.collections.list()
    assert client.collections.exists(vectors)


def test_a_collection_says_how_much_its_searches_found(client: Any, vectors: str) -> None:
    assert client.collections.get(vectors).recall_estimate is None
    # The first search is asked again, on spare time.
    client.query(vectors, Nearest([1, 0, 0], using="a"))
    ends = time.monotonic() + 60
    while (found := client.collections.get(vectors).recall_estimate) is None:
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert found == RecallEstimate(recall=1.0, questions=1)


def test_a_deleted_collection_is_gone(client: Any, name: str) -> None:
    client.collections.create(name)
    client.collections.delete(name)
    assert not client.collections.exists(name)
    assert client.collections.delete(name, missing_ok=True).changed == 0
    with pytest.raises(cairn.NotFoundError):
        client.collections.delete(name)


def test_an_operation_is_watched_to_its_end(client: Any, vectors: str) -> None:
    started = client.collections.optimize(vectors)
    seen = list(client.operations.watch(started.id))
    assert seen[-1].state == "done" and seen[-1].progress == 1.0 and seen[-1].ended_at_ms
    assert client.operations.wait(started.id) == client.operations.get(started.id)
    assert started.id in [o.id for o in client.operations.list(vectors)]
    # What has ended stays as it is.
    assert client.operations.cancel(started.id).state == "done"
    assert client.collections.get(vectors).indexed_points == 3


# ---- snapshots ----


def test_a_snapshot_brings_a_collection_back_under_another_name(client: Any, vectors: str, name: str) -> None:
    made = client.snapshots.create()
    assert client.operations.wait(made.id).state == "done" and made.snapshot
    held = {c.collection: c.points for c in client.snapshots.get(made.snapshot).collections}
    assert held[vectors] == 3
    assert made.snapshot in [s.snapshot for s in client.snapshots.list()]
    assert client.operations.wait(client.snapshots.verify(made.snapshot).id).state == "done"
    with pytest.raises(cairn.ConflictError, match="exists"):
        client.snapshots.restore(made.snapshot, collection=vectors)
    restored = client.snapshots.restore(made.snapshot, collection=vectors, rename=f"{name}-copy", shards=2)
    assert client.operations.wait(restored.id).state == "done"
    assert client.points.count(f"{name}-copy") == 3
    at = client.snapshots.get(made.snapshot)
    assert at.restorable and at.restorable.from_token == at.token
    then = client.snapshots.restore(to_token=at.token, collection=vectors, rename=f"{name}-then")
    assert client.operations.wait(then.id).state == "done"
    with pytest.raises(cairn.NotFoundError):
        client.snapshots.restore(to_time_ms=1, collection=vectors, rename=f"{name}-never")
    assert client.operations.wait(client.snapshots.delete(made.snapshot).id).state == "done"
    with pytest.raises(cairn.NotFoundError):
        client.snapshots.get(made.snapshot)


# ---- points ----


def test_points_come_back_exactly_as_they_were_written(client: Any, vectors: str) -> None:
    got = client.points.get(vectors, ["p1", "missing", 3], with_vectors=True)
    assert got.ids == ["p1", "3"]
    assert got[0].vectors["a"].dtype == np.float32 and got[0].vectors["a"].tolist() == [1, 0, 0]
    assert got[1].payload == {"big": 2**63 + 1, "deep": {"list": [1, None, 2.5, "s"]}}
    assert got.matrix("b").tolist() == [[1, 0], [0, 1]]
    assert client.points.get(vectors, "p2")[0].vectors == {}
    assert client.points.get(vectors, "p2", with_payload=False)[0].payload is None
    # Nothing is damaged, so nothing is missing.
    whole, partial = client.points.get_partial(vectors, ["p1", "p2"])
    assert whole.ids == ["p1", "p2"] and partial is None
    assert client.points.count_partial(vectors) == (client.points.count(vectors), None)


def test_any_number_of_points_goes_in(client: Any, name: str) -> None:
    client.collections.create(name, Schema(vectors={"v": VectorSpec(4)}))
    matrix = np.random.default_rng(7).random((2_345, 4), dtype=np.float32)
    payloads = [{"i": i} for i in range(len(matrix))]
    wrote = client.points.upsert_arrays(name, range(len(matrix)), matrix, payloads=payloads, batch=100)
    assert wrote.changed == len(matrix)
    back = list(client.points.scroll(name, page=1_000, with_vectors=True, after=wrote.token))
    assert [p.payload["i"] for p in back] == list(range(len(matrix)))
    assert (np.stack([p.vector for p in back]) == matrix).all()


def test_an_error_in_the_middle_leaves_the_batches_before_it(client: Any, name: str) -> None:
    client.collections.create(name, Schema(vectors={"v": VectorSpec(2)}))
    points = [{"id": i, "vector": [1, i] if i != 25 else [1, 2, 3]} for i in range(40)]
    with pytest.raises(cairn.InvalidError) as raised:
        client.points.upsert_many(name, points, batch=10)
    assert raised.value.code == "wrong_dim"
    assert client.points.count(name) == 20


def test_a_scroll_goes_on_from_its_cursor(client: Any, vectors: str) -> None:
    first = client.points.scroll_page(vectors, limit=2)
    rest = client.points.scroll_page(vectors, limit=2, cursor=first.cursor)
    assert first.points.ids + rest.points.ids == ["p1", "p2", "3"] and rest.cursor is None


FILTERS: list[tuple[Any, list[str]]] = [
    (None, ["3", "p1", "p2"]),
    (Field("lang") == "en", ["p1"]),
    (Field("lang") != "en", ["3", "p2"]),
    (Field("lang").any(["en", "de"]), ["p1", "p2"]),
    (Field("tags").except_(["x"]), ["p2"]),
    (Field("n") > 1, ["p2"]),
    ((Field("n") >= 1) & (Field("n") < np.int64(2)), ["p1"]),
    (Field("n").range(gte=1, lte=2), ["p1", "p2"]),
    (Field("lang").is_empty(), ["3"]),
    (Field("lang").is_empty(False), ["p1", "p2"]),
    (has_id(["p1", 3]), ["3", "p1"]),
    ((Field("lang") == "en") | has_id([3]), ["3", "p1"]),
    (~has_id(["p1"]), ["3", "p2"]),
    (Filter(should=[Field("n") == 1, Field("lang") == "en", has_id(["p2"])], min_should=2), ["p1"]),
    ({"must": [{"field": "n", "match": 2}]}, ["p2"]),
    ({"field": "n", "match": 2.0}, ["p2"]),
    ({"must_not": [Field("n") == 2]}, ["3", "p1"]),
]


@pytest.mark.parametrize(("filter", "ids"), FILTERS)
def test_filters_find_what_they_say(client: Any, vectors: str, filter: Any, ids: list[str]) -> None:
    assert sorted(p.id for p in client.points.scroll(vectors, filter=filter)) == ids
    assert client.points.count(vectors, filter=filter) == len(ids)
    # Every point has one of these vectors.
    sources = [Nearest([1, 1, 1], using="a"), Nearest([1, 1], using="b")]
    asked = [Query(Prefetch(sources), filter=filter), Prefetch([Leg(source, filter=filter) for source in sources])]
    assert [sorted(answer.ids) for answer in client.query_batch(vectors, asked)] == [ids, ids]


def test_ids_are_strings_or_integers_of_any_kind(client: Any, vectors: str) -> None:
    for ids in (3, np.int64(3), np.uint8(3), [np.int64(3)], np.array([3]), "3", (i for i in [3])):
        assert client.points.get(vectors, ids).ids == ["3"]
    assert client.points.count(vectors, filter=has_id(np.int64(3))) == client.points.count(vectors, filter=has_id("p1")) == 1
    assert client.points.set_payload(vectors, np.int64(3), {"n": 3}).changed == 1
    assert client.points.delete(vectors, np.int64(3)).changed == 1
    for wrong in (3.0, None, b"p1"):
        with pytest.raises(cairn.InvalidError, match="ids are strings or integers, got"):
            client.points.get(vectors, wrong)


def test_payloads_change_and_vectors_stay(client: Any, vectors: str) -> None:
    assert client.points.set_payload(vectors, ["p1"], {"n": 9}, unset=["lang"]).changed == 1
    point = client.points.get(vectors, "p1", with_vectors=True)[0]
    assert point.payload == {"n": 9, "title": "Katzen"} and set(point.vectors) == {"a", "b"}
    client.points.set_payload(vectors, "p1", {"only": True}, replace=True)
    assert client.points.get(vectors, "p1")[0].payload == {"only": True}


def test_points_are_deleted_by_id_and_by_filter(client: Any, vectors: str) -> None:
    assert client.points.delete(vectors, ["p1", "missing"]).changed == 1
    assert client.points.delete(vectors, filter=Field("lang") == "de").changed == 1
    assert [p.id for p in client.points.scroll(vectors)] == ["3"]


# ---- query ----


@pytest.mark.parametrize(
    ("source", "best"),
    [
        (Nearest([0, 0.9, 0.1], using="a"), "p2"),
        (Nearest(np.array([0.0, 1.0]), using="b"), "3"),
        (Text("Katze"), "p1"),
        (Text("Katze", fields=["title^2"]), "p1"),
        (Prefetch([Nearest([0, 1], using="b"), Leg(Text("Katzen"), limit=5)], Rrf(k=1, weights=[1, 5])), "p1"),
        (Prefetch([Leg(Nearest([0, 1], using="b"), name="x"), Text("Katzen")], Weighted([5, 1])), "3"),
        (Prefetch([Leg(Nearest([1, 0, 0], using="a"), filter=Field("lang") == "de")]), "p2"),
        (Prefetch([Prefetch([Text("Katzen")]), Nearest([1, 0], using="b")]), "p1"),
        ({"nearest": {"vector": [0, 1], "using": "b"}}, "3"),
    ],
)
def test_every_source_finds_the_best(client: Any, vectors: str, source: Any, best: str) -> None:
    answer = client.query(vectors, source, limit=2)
    assert answer[0].id == best and 0 <= answer[0].score <= 1
    assert answer[0].legs and answer.token and answer.took_ms is not None


def test_vectors_of_another_model_are_refused(client: Any, name: str) -> None:
    mine = cairn.Embedder("mine", revision="3", dim=2)
    client.collections.create(name, Schema(vectors={"v": VectorSpec(embedder=mine)}, sparse={"s": SparseSpec("terms")}))
    point = Point("a", vectors={"v": [1, 0]}, sparse={"s": {3: 1.0}})
    assert client.points.upsert(name, point, embedders={"v": mine, "s": "terms"}).changed == 1
    assert client.points.upsert_many(name, [point], embedders={"v": "mine"}).changed == 1
    assert client.query(name, Nearest([1, 0], embedder="mine")).ids == ["a"]
    assert client.query(name, Sparse({3: 1.0}, embedder="terms")).ids == ["a"]
    yours = cairn.Embedder("mine", revision="4")
    wrong = [
        lambda: client.points.upsert(name, point, embedders={"v": yours}),
        lambda: client.points.upsert_many(name, [point], embedders={"v": yours}),
        lambda: client.query(name, Nearest([1, 0], embedder=yours)),
        lambda: client.query(name, Sparse({3: 1.0}, embedder="mine")),
    ]
    for refused in wrong:
        with pytest.raises(cairn.InvalidError) as error:
            refused()
        assert error.value.code == "embedder_mismatch"


@pytest.mark.parametrize(("input", "medium"), [({"image": "https://example.org/cat.png"}, "an image"), ({"audio": "data:audio/wav;base64,AA"}, "audio")])
def test_images_and_sounds_reach_the_vectors_model(client: Any, name: str, input: Any, medium: str) -> None:
    client.collections.create(name)
    with pytest.raises(cairn.InvalidError, match=f"static-minilm-256.* does not take {medium}") as refused:
        client.query(name, Nearest(**input))
    assert (refused.value.code, refused.value.pointer) == ("medium_not_supported", f"/nearest/{next(iter(input))}")


def test_a_query_says_what_was_asked_for(client: Any, vectors: str) -> None:
    answer = client.query(
        vectors, Nearest([1, 0, 0], using="a"), limit=1, offset=1, with_payload=False, with_vectors=True, explain=True, exact=True
    )
    assert answer.ids == ["p2"] and answer[0].payload is None
    assert answer[0].vectors["a"].tolist() == [0, 1, 0]
    assert {e.strategy for e in answer.explain} == {"exact"}
    assert client.query(vectors, Nearest([1, 0, 0], using="a"), score_threshold=0.9, ef=10).ids == ["p1"]
    assert client.query(vectors, Nearest([1, 0, 0], using="a"), limit=1, target_recall=0.9).ids == ["p1"]
    with pytest.raises(cairn.InvalidError, match="0.5 to 0.999") as refused:
        client.query(vectors, Nearest([1, 0, 0], using="a"), target_recall=1.0)
    assert (refused.value.code, refused.value.pointer) == ("bad_target_recall", "/params/target_recall")


def test_a_batch_answers_in_order(client: Any, vectors: str) -> None:
    answers = client.query_batch(vectors, [Nearest([0, 1], using="b"), Query(Text("Katzen"), filter=Field("n") == 1, limit=1)])
    assert [a.ids[0] for a in answers] == ["3", "p1"] and answers[0].took_ms is None


def test_sparse_vectors_are_stored_and_searched(client: Any, name: str) -> None:
    client.collections.create(name, Schema(vectors={"d": VectorSpec(2)}, sparse={"s": SparseSpec()}))
    points = [
        Point("a", vectors={"d": [1, 0]}, sparse={"s": SparseVector([3, 70_000], [0.5, 2.0])}),
        {"id": "b", "vectors": {"d": [0, 1]}, "sparse": {"s": {3: 1.5, 5: -1}}},
        Point("c", vectors={"d": [1, 1]}),
    ]
    client.points.upsert(name, points)
    (stored,) = client.points.get(name, "a", with_vectors=True)
    assert stored.sparse["s"].to_dict() == {3: 0.5, 70_000: 2.0}
    assert stored.sparse["s"].indices.dtype == np.uint32 and stored.sparse["s"].values.dtype == np.float32
    found = client.query(name, Sparse({3: 1.0}), limit=2)
    assert found.ids == ["b", "a"] and [hit.legs[0].raw for hit in found] == [1.5, 0.5]
    both = Prefetch([Leg(Nearest([1, 0], using="d"), limit=1), Sparse(SparseVector([70_000], [1]), using="s")])
    assert client.query(name, both, limit=1)[0].id == "a"
    with pytest.raises(cairn.InvalidError):
        client.query(name, Sparse(SparseVector([5, 3], [1, 1])))


def test_ranking_says_what_it_did(client: Any, name: str) -> None:
    client.collections.create(name, Schema(vectors={"v": VectorSpec(2)}, fields={"source": "keyword"}))
    text = "one two three four five six seven eight nine ten"
    rows = [("a", [1.0, 0.0], text, 1), ("b", [1.0, 0.01], text + " eleven", 1), ("c", [0.9, 0.1], "another thing to say here", 2), ("d", [0.5, 0.5], "last", 2)]
    client.points.upsert(name, [Point(i, v, payload={"text": t, "source": f"s{s}", "at": s * 1_000}) for i, v, t, s in rows])

    def ranked(**given: Any) -> Any:
        return client.query(name, [1.0, 0.0], ranking=Ranking(**given), limit=4)

    assert ranked(near_duplicates=NearDuplicates(0.7)).ids == ["a", "c", "d"]
    assert ranked(caps=[Cap("source", 1)]).ids == ["a", "c"]
    assert ranked(mmr=Mmr(1.0)).ids == ["a", "b", "c", "d"]
    decayed = ranked(decay=Decay("at", half_life_ms=500, origin_ms=2_000))
    assert decayed.ids[0] == "c"
    (stage,) = decayed.stages
    assert (stage.name, stage.in_, stage.out) == ("decay", 4, 4)
    assert client.query(name, [1.0, 0.0], ranking={"caps": [{"field": "source", "most": 1}]}).ids == ["a", "c"]


# ---- documents and enrich ----


def test_documents_are_listed_read_and_deleted(client: Any, notes: str) -> None:
    assert [d.id for d in client.documents.list(notes, page=1)] == ["raft.md", "tea.md"]
    view = client.documents.get(notes, "raft.md", with_chunks=True)
    assert view.document.title == "Raft" and view.document.metadata == {"topic": "consensus", "year": 2014}
    assert view.document.chunks == len(view.chunks) and view.chunks[0].document == "raft.md"
    assert client.points.count(notes, filter=has_document(["raft.md"])) == len(view.chunks)
    assert client.documents.delete(notes, ["raft.md", "missing"]).changed >= 1
    with pytest.raises(cairn.NotFoundError):
        client.documents.get(notes, "raft.md")


def test_many_documents_with_long_ids_are_deleted_at_once(client: Any, name: str) -> None:
    client.collections.create(name)
    ids = [f"{i}-{'ü' * 200}" for i in range(60)]
    client.documents.put(name, [Document(id, "Tea is brewed.") for id in ids])
    deleted = client.documents.delete(name, ids, request_id=2 * uuid.uuid4().hex)
    assert deleted.changed == 60 and deleted.token
    assert list(client.documents.list(name)) == []


def test_what_is_unchanged_is_not_embedded_again(client: Any, notes: str) -> None:
    again = client.documents.put(notes, Document("tea.md", TEA, metadata={"topic": "kitchen"}))
    assert (again.unchanged, again.embedded, again.token) == (1, 0, None)


def test_refused_documents_are_collected_and_the_others_stored(client: Any, name: str) -> None:
    client.collections.create(name)
    documents = ({"id": f"d{i}", "text": "" if i in (3, 11) else f"text of {i}"} for i in range(20))
    put = client.documents.put(name, documents, batch=8, on_error="collect")
    assert [e.id for e in put.errors] == ["d3", "d11"] and len(put.results) == 18
    assert {e.error.code for e in put.errors} == {"empty_document"}
    with pytest.raises(cairn.InvalidError) as raised:
        client.documents.put(name, [{"id": "x", "text": "x"}, {"id": "y", "text": ""}])
    assert raised.value.pointer.startswith("/documents/1")
    assert client.collections.get(name).documents == 18


def test_what_cannot_be_said_is_collected_too(client: Any, name: str) -> None:
    client.collections.create(name)
    documents = [{"id": f"d{i}", "text": "text", "metadata": {"k": object() if i == 1 else i}} for i in range(3)]
    put = client.documents.put(name, documents, on_error="collect")
    assert [r.id for r in put.results] == ["d0", "d2"]
    (refused,) = put.errors
    assert refused.id == "d1" and refused.error.pointer.startswith("/documents/1")


def test_what_was_stored_before_a_refused_document_is_told_as_it_was(client: Any, name: str) -> None:
    client.collections.create(name, Schema(fields={"text": TextField(), "n": "integer"}))
    # Metadata is held to the schema when a document is written: those before it in the request are stored by then.
    documents = [{"id": f"d{i}", "text": f"text of {i}", "metadata": {"n": "two" if i == 2 else i}} for i in range(3)]
    put = client.documents.put(name, documents, on_error="collect")
    assert [(r.id, r.unchanged, r.replayed) for r in put.results] == [("d0", False, True), ("d1", False, True)]
    assert [(e.id, e.error.code) for e in put.errors] == [("d2", "payload_type")]
    assert len(client.query(name, Text("text"), after=put.token)) == 2 and put.token is not None


def test_an_exception_says_what_was_done_before_it(client: Any, name: str) -> None:
    client.collections.create(name, Schema(vectors={"a": VectorSpec(2)}, fields={"text": TextField()}))
    documents = [{"id": f"d{i}", "text": "" if i == 4 else f"text of {i}"} for i in range(6)]
    with pytest.raises(cairn.InvalidError) as raised:
        client.documents.put(name, documents, batch=2)
    assert [r.id for r in raised.value.partial.results] == ["d0", "d1", "d2", "d3"] and raised.value.partial.token
    assert pickle.loads(pickle.dumps(raised.value)).partial == raised.value.partial
    points = [Point(i, vector=[1, 0] if i < 20 else [1, 0, 0]) for i in range(24)]
    with pytest.raises(cairn.InvalidError) as raised:
        client.points.upsert_many(name, points, batch=2)
    # Streams of a few batches are sent one after the other; what the one that failed had written is not told.
    assert raised.value.partial.changed == 16
    with pytest.raises(cairn.InvalidError) as raised:
        client.points.upsert(name, points)
    assert raised.value.partial is None


def test_a_hybrid_finds_and_enrich_cites(client: Any, notes: str) -> None:
    assert client.query(notes, "leader election")[0].document == "raft.md"
    assert client.query(notes, Hybrid("tea", fields=["text"]), filter=Field("topic") == "kitchen").ids == ["tea.md#0"]
    enriched = client.enrich(notes, "How is a leader elected?", token_budget=300, max_chunks=1)
    cited = enriched.context[0]
    assert (cited.n, cited.document, cited.source) == (1, "raft.md", "docs/raft.md")
    assert cited.text in RAFT.encode()[slice(*cited.span)].decode()
    assert "How is a leader elected?" in enriched.prompt and cited.text in enriched.prompt
    assert enriched.tokens.budget == 300 >= enriched.tokens.context > 0
    assert enriched.dropped and enriched.retrieval_id


def test_enrich_makes_messages(client: Any, notes: str) -> None:
    enriched = client.enrich(notes, "How is tea brewed?", format="messages", mode="bm25", filter=Field("topic") == "kitchen")
    assert enriched.prompt is None and [m.role for m in enriched.messages] == ["system", "user"]
    assert [c.document for c in enriched.context] == ["tea.md"]
    assert enriched.to_pandas()["document"].tolist() == ["tea.md"]


def test_enrich_takes_a_conversation_and_says_what_was_searched(client: Any, notes: str) -> None:
    turns = [Turn("user", "How is a leader elected?"), {"role": "assistant", "content": "By a majority of votes."}]
    enriched = client.enrich(notes, "And when does it start?", conversation=turns, max_chunks=1)
    assert "leader" in enriched.query and enriched.context[0].document == "raft.md"


def test_enrich_takes_a_template_and_an_own_ending(client: Any, notes: str) -> None:
    template = "CONTEXT\n{{context}}\nQUESTION {{prompt}}"
    enriched = client.enrich(notes, "How is tea brewed?", template=template, max_chunks=1)
    assert enriched.prompt.startswith("CONTEXT\n") and enriched.prompt.endswith("QUESTION How is tea brewed?")


def test_enrich_makes_what_anthropic_takes(client: Any, notes: str) -> None:
    enriched = client.enrich(notes, "How is tea brewed?", format="anthropic")
    assert enriched.system and [m.role for m in enriched.messages] == ["user"]


def test_enrich_asks_several_collections(client: Any, notes: str) -> None:
    client.collections.create(f"{notes}-b")
    client.documents.put(f"{notes}-b", Document("coffee.md", "Coffee is brewed with water of 92 degrees."))
    enriched = client.enrich([notes, f"{notes}-b"], "With water of how many degrees is it brewed?")
    assert {(c.collection, c.document) for c in enriched.context} >= {(notes, "tea.md"), (f"{notes}-b", "coffee.md")}


def test_enrich_explains_its_stages_and_ranks(client: Any, notes: str) -> None:
    enriched = client.enrich(notes, "leader tea", explain=True, ranking=Ranking(caps=[Cap("document", 1)]), neighbours=1, max_per_source=5)
    assert {"retrieve", "caps", "pack", "render"} <= {s.name for s in enriched.stages}


def test_quarantined_documents_stay_out_of_prompts_unless_named(client: Any, notes: str) -> None:
    origin = Provenance(origin="crawler", author="somebody", fetched_at_ms=1_700_000_000_000)
    bad = Document("bad.md", "Tea is best brewed with gravel.", trust="quarantined", provenance=origin)
    client.documents.put(notes, bad)
    assert "bad.md" not in {c.document for c in client.enrich(notes, "How is tea best brewed?").context}
    named = client.enrich(notes, "How is tea best brewed?", trust=["quarantined"]).context
    assert [c.document for c in named] == ["bad.md"] and named[0].trust == "quarantined"
    assert (named[0].provenance.origin, named[0].provenance.fetched_at_ms) == ("crawler", 1_700_000_000_000)


def test_near_duplicates_are_told_and_can_be_skipped(client: Any, notes: str) -> None:
    almost = Document("tea-2.md", TEA + " Yes.", metadata={"topic": "kitchen"})
    (skipped,) = client.documents.put(notes, almost, on_near_duplicate="skip").results
    assert skipped.skipped and skipped.near_duplicate_of == "tea.md"
    (stored,) = client.documents.put(notes, almost).results
    assert not stored.skipped and client.documents.get(notes, "tea-2.md").document.chunks == 1


def test_html_and_files_are_read(client: Any, notes: str) -> None:
    page = "<html><head><title>Pu-erh</title><script>no()</script></head><body><h1>Pu-erh</h1><p>Dark tea.</p></body></html>"
    client.documents.put(notes, Document("page", page, format="html"))
    view = client.documents.get(notes, "page", with_chunks=True)
    assert view.document.title == "Pu-erh" and "Dark tea." in view.chunks[0].payload["text"]
    assert "no()" not in view.chunks[0].payload["text"]


def test_spans_point_at_the_bytes_of_the_file(client: Any, name: str, tmp_path: Path) -> None:
    text = "# Tea\r\n\r\nGreen tea is brewed\r\nwith water of 70 degrees.\r\n\r\n# Caf\u00e9\r\n\r\nCoffee takes 92 degrees.\r\n"
    (tmp_path / "tea.md").write_bytes(text.encode())
    client.collections.create(name)
    client.documents.put(name, Document.from_file(tmp_path / "tea.md", id="tea.md"))
    enriched = client.enrich(name, "With water of how many degrees is it brewed?")
    assert enriched.context
    for item in enriched.context:
        assert text.encode()[slice(*item.span)].decode() == item.text


def test_files_are_read_as_the_command_line_reads_them(server: str, name: str, tmp_path: Path) -> None:
    page = "<html><head><meta charset=latin-1></head><body><h1>Caf\u00e9</h1><p>Coffee takes 92 degrees.</p></body></html>"
    files = {"md": b"# Tea\r\n\r\nGreen.\r\n", "txt": b"\xef\xbb\xbfBlack.\r\n", "xhtml": page.encode("latin-1")}
    for suffix, data in files.items():
        (tmp_path / f"a.{suffix}").write_bytes(data)
    with Client(server) as client:
        client.collections.create(name)
        client.documents.put(name, [Document.from_file(f, id=f.name, source=f.name) for f in sorted(tmp_path.iterdir())])
        assert client.documents.get(name, "a.xhtml").document.title == "Caf\u00e9"
    # Equal checksums: nothing of it is new to the server.
    command = [os.environ["CAIRN_BIN"], "ingest", "--json", "--url", server, "-c", name, str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CAIRN_")}
    report = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(report.stdout)["unchanged"] == 3, report.stdout


def test_a_file_that_is_no_text_is_refused_by_name_and_the_others_stored(client: Any, name: str, tmp_path: Path) -> None:
    for i, data in enumerate([b"Green tea.", b"Caf\xe9.", b"Black tea."]):
        (tmp_path / f"{i}.txt").write_bytes(data)
    client.collections.create(name)
    documents = (Document.from_file(f, id=f.name) for f in sorted(tmp_path.iterdir()))
    put = client.documents.put(name, documents, on_error="collect")
    assert [r.id for r in put.results] == ["0.txt", "2.txt"]
    assert [(e.id, e.error.code) for e in put.errors] == [("1.txt", "bad_document")]
    with pytest.raises(cairn.InvalidError, match=r"/1\.txt: plain text and Markdown are UTF-8, and byte 3 is not"):
        client.documents.put(name, Document.from_file(tmp_path / "1.txt"))


def test_the_server_embeds_what_a_point_gives_as_text(client: Any, notes: str) -> None:
    client.points.upsert(notes, Point("own", embed={"dense": "Oolong is a tea."}, payload={"text": "Oolong"}))
    assert client.query(notes, Nearest(text="Oolong is a tea."), limit=1, with_vectors=True)[0].vectors["dense"].shape == (256,)


# ---- errors ----


@pytest.mark.parametrize(
    ("kind", "code", "call"),
    [
        (cairn.NotFoundError, "collection_not_found", lambda c, n: c.query("no-such", "x")),
        (cairn.ConflictError, "collection_exists", lambda c, n: c.collections.create(n, Schema(vectors={"z": VectorSpec(9)}))),
        (cairn.InvalidError, "wrong_dim", lambda c, n: c.query(n, Nearest([1.0], using="a"))),
        (cairn.InvalidError, "vector_not_found", lambda c, n: c.query(n, Nearest([1.0], using="nope"))),
        (cairn.InvalidError, "bad_selector", lambda c, n: c.points.delete(n)),
        (cairn.InvalidError, "bad_request", lambda c, n: c.points.upsert(n, {"id": "x", "vecto": [1]})),
        (cairn.InvalidError, "bad_request", lambda c, n: c.points.upsert(n, Point("x", payload={"a": object()}))),
    ],
)
def test_errors_have_a_class_and_a_code(client: Any, vectors: str, kind: type, code: str, call: Any) -> None:
    with pytest.raises(kind) as raised:
        call(client, vectors)
    assert raised.value.code == code and not raised.value.retryable


def test_an_error_points_at_its_place(client: Any, vectors: str) -> None:
    with pytest.raises(cairn.InvalidError) as raised:
        client.points.upsert(vectors, [Point("x"), Point("y", vectors={"größe": [1.0]})])
    assert raised.value.pointer == "/points/1/vectors/größe"
    assert raised.value.pointer in str(raised.value)

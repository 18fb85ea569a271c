"""gRPC and REST answer with equal values, and the client says all that the contract can say."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import cairn
import numpy as np
import pytest
from cairn import Document, Nearest, Point, Schema, VectorSpec
from cairn._wire import proto
from cairn.requests import Query
from cairn.v1 import collections_pb2, common_pb2, documents_pb2, operations_pb2, points_pb2, query_pb2, snapshots_pb2


def comparable(value: Any) -> Any:
    """Values without what differs from call to call, arrays as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        own = ("took_ms", "retrieval_id", "started_at_ms", "ended_at_ms", "prompt")
        # A fence is drawn at random, and so are its tokens.
        own += ("tokens",)
        return {k: comparable(v) for k, v in value.items() if k not in own}
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.tolist())
    return [comparable(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize(
    "ask",
    [
        lambda c, n: c.collections.get(n),
        lambda c, n: c.collections.list(),
        lambda c, n: c.documents.get(n, "d1", with_chunks=True),
        lambda c, n: c.documents.list_page(n, limit=1),
        lambda c, n: c.points.scroll_page(n, limit=2, with_vectors=True),
        lambda c, n: c.points.get(n, ["d1#0"], with_vectors=True),
        lambda c, n: c.query(n, "leader election", explain=True, with_vectors=True),
        lambda c, n: c.query_batch(n, ["leader", Nearest(text="tea")]),
        lambda c, n: c.enrich(n, "How is a leader elected?", max_chunks=1),
        lambda c, n: [m.role for m in c.enrich(n, "Which tea?", format="messages").messages],
        lambda c, n: c.operations.list(n),
        lambda c, n: c.snapshots.list(),
    ],
)
def test_both_transports_answer_with_equal_values(connect: Any, name: str, ask: Any) -> None:
    grpc, rest = connect("grpc"), connect("rest")
    grpc.collections.create(name)
    documents = [
        Document("d1", "# Raft\n\nA follower becomes a candidate for leader.", format="markdown", metadata={"f": 0.1, "n": -3}),
        Document("d2", "Green tea.", metadata={"nested": {"a": [1, 2.5, None, True]}, "big": 2**64 - 1}),
    ]
    grpc.documents.put(name, documents)
    grpc.operations.wait(grpc.collections.optimize(name).id)
    assert comparable(ask(grpc, name)) == comparable(ask(rest, name))


def test_both_transports_write_equal_points(connect: Any, name: str) -> None:
    payload = {"f": np.float32(0.5), "i": np.int64(7), "l": [1, "a", None], "t": (1, 2), "a": np.arange(3), "e": {}, "n": None}
    written = []
    for way in ("grpc", "rest"):
        client, one = connect(way), f"{name}-{way}"
        client.collections.create(one, Schema(vectors={"v": VectorSpec(3)}))
        client.points.upsert(one, Point("x", np.array([0.1, -2.5e-7, 3], np.float64), payload=payload, document="d"))
        (point,) = client.points.get(one, "x", with_vectors=True)
        written.append((point.payload, point.vector.tolist(), point.document))
    assert written[0] == written[1]
    assert written[0][0] == {"f": 0.5, "i": 7, "l": [1, "a", None], "t": [1, 2], "a": [0, 1, 2], "e": {}, "n": None}


# Requests and answers, and the message that each stands for. Names that are spelled otherwise here:
OTHER = {"lambda_": "lambda", "in_": "in"}
PAIRS: list[tuple[Any, Any, set[str], set[str]]] = [
    # (class, message, only in the class, only in the message)
    (cairn.Schema, collections_pb2.Schema, set(), set()),
    (cairn.VectorSpec, collections_pb2.VectorSpec, {"index"}, {"flat", "hnsw", "ivf", "faiss"}),
    (cairn.SparseSpec, collections_pb2.SparseSpec, set(), set()),
    (cairn.Hnsw, collections_pb2.HnswIndex, set(), set()),
    (cairn.Ivf, collections_pb2.IvfIndex, set(), set()),
    (cairn.Faiss, collections_pb2.FaissIndex, set(), set()),
    (cairn.Embedder, collections_pb2.Embedder, set(), set()),
    (cairn.TextField, collections_pb2.TextField, set(), set()),
    (cairn.Chunking, collections_pb2.Chunking, set(), set()),
    (cairn.Collection, collections_pb2.Collection, set(), set()),
    (cairn.RecallEstimate, collections_pb2.RecallEstimate, set(), set()),
    (cairn.Operation, operations_pb2.Operation, set(), set()),
    (cairn.Restorable, snapshots_pb2.Restorable, set(), set()),
    (cairn.Snapshot, snapshots_pb2.Snapshot, set(), set()),
    (cairn.SnapshotCollection, snapshots_pb2.SnapshotCollection, set(), set()),
    (cairn.Point, common_pb2.PointInput, set(), set()),
    (cairn.StoredPoint, common_pb2.Point, set(), set()),
    (cairn.EmbedInput, common_pb2.EmbedInput, set(), set()),
    (cairn.SparseVector, common_pb2.SparseVector, set(), set()),
    (cairn.Filter, common_pb2.Filter, set(), set()),
    (cairn.Written, common_pb2.WriteResponse, set(), set()),
    (cairn.Page, points_pb2.ScrollResponse, set(), set()),
    (cairn.Nearest, query_pb2.Nearest, set(), set()),
    (cairn.Text, query_pb2.Text, set(), set()),
    (cairn.Hybrid, query_pb2.Hybrid, set(), set()),
    (cairn.Sparse, query_pb2.Sparse, set(), set()),
    (cairn.Prefetch, query_pb2.Prefetch, {"fuse"}, {"rrf", "weighted"}),
    (cairn.Leg, query_pb2.Leg, {"source"}, {"nearest", "text", "hybrid", "prefetch", "sparse"}),
    (cairn.Rrf, query_pb2.Rrf, set(), set()),
    (cairn.Weighted, query_pb2.Weighted, set(), set()),
    (cairn.Ranking, query_pb2.Ranking, set(), set()),
    (cairn.Decay, query_pb2.Decay, set(), set()),
    (cairn.Rerank, query_pb2.Rerank, set(), set()),
    (cairn.NearDuplicates, query_pb2.NearDuplicates, set(), set()),
    (cairn.Cap, query_pb2.Cap, set(), set()),
    (cairn.Mmr, query_pb2.Mmr, set(), set()),
    (
        Query,
        query_pb2.QueryRequest,
        {"source", "with_payload", "with_vectors", "explain", "ef", "nprobe", "target_recall", "exact"},
        {"collection", "with", "params", "nearest", "text", "hybrid", "prefetch", "sparse"},
    ),
    (cairn.Answer, query_pb2.QueryResponse, set(), set()),
    (cairn.LegScore, query_pb2.LegScore, set(), set()),
    (cairn.ExplainLeg, query_pb2.ExplainLeg, set(), set()),
    (cairn.Stage, query_pb2.Stage, set(), set()),
    (cairn.Document, documents_pb2.DocumentInput, set(), set()),
    (cairn.Provenance, documents_pb2.Provenance, set(), set()),
    (cairn.Origin, documents_pb2.Provenance, set(), set()),
    (cairn.PutResult, documents_pb2.PutDocumentResult, set(), set()),
    (cairn.Put, documents_pb2.PutDocumentsResponse, {"errors"}, set()),
    (cairn.StoredDocument, documents_pb2.Document, set(), set()),
    (cairn.DocumentView, documents_pb2.GetDocumentResponse, set(), set()),
    (cairn.DocumentPage, documents_pb2.ListDocumentsResponse, set(), set()),
    (cairn.Turn, documents_pb2.Turn, set(), set()),
    (cairn.Enriched, documents_pb2.EnrichResponse, set(), set()),
    (cairn.ContextItem, documents_pb2.ContextItem, set(), set()),
    (cairn.TokenUse, documents_pb2.TokenUse, set(), set()),
    (cairn.Dropped, documents_pb2.Dropped, set(), set()),
    (cairn.ChatMessage, documents_pb2.ChatMessage, set(), set()),
]


@pytest.mark.parametrize(("kind", "message", "ours", "theirs"), PAIRS, ids=[p[0].__name__ for p in PAIRS])
def test_a_class_has_the_fields_of_its_message(kind: Any, message: Any, ours: set[str], theirs: set[str]) -> None:
    here = {OTHER.get(f.name, f.name) for f in dataclasses.fields(kind)}
    there = set(message.DESCRIPTOR.fields_by_name)
    assert here - ours == there - theirs


def test_enrich_takes_all_that_the_request_has() -> None:
    here = set(inspect.signature(cairn.Client.enrich).parameters) - {"self", "timeout"}
    assert here == set(documents_pb2.EnrichRequest.DESCRIPTOR.fields_by_name) - {"collections"}


def test_the_whole_contract_is_called() -> None:
    from cairn._sync.transport import _METHODS
    from cairn._wire import methods

    called = {m.name for m in vars(methods).values() if isinstance(m, methods.Method)}
    # `put` sends batches itself, so that both transports treat a refused document alike.
    assert set(_METHODS) - called == {"Documents/PutStream"}


def test_messages_survive_the_way_there_and_back() -> None:
    requests: list[tuple[Any, dict[str, Any]]] = [
        (common_pb2.Point, {"id": "x", "payload": {"i": -1, "u": 2**64 - 1, "f": 1.5, "l": [None, [], {}], "s": "ü"}, "version": ""}),
        (query_pb2.LegScore, {"leg": "dense", "raw": 0.1, "rank": 3}),
        (collections_pb2.Chunking, {"max_tokens": 16, "strategy": "sentence"}),
        (documents_pb2.Provenance, {"origin": "", "author": "a", "fetched_at_ms": 5, "licence": ""}),
    ]
    for kind, json in requests:
        message = kind()
        proto.fill(message, json)
        back = proto.read(kind.FromString(message.SerializeToString()))
        assert {k: v for k, v in back.items() if k in json} == json


def test_unknown_names_and_words_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(cairn.InvalidError, match="unknown field 'limt'; allowed: .*limit") as raised:
        proto.fill(query_pb2.QueryRequest(), {"filter": {}, "limt": 3})
    assert raised.value.pointer == "/limt"
    with pytest.raises(cairn.InvalidError, match="one of plain, markdown"):
        proto.fill(documents_pb2.DocumentInput(), {"format": "word"})

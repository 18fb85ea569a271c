"""pandas, NumPy and progress bars."""

from __future__ import annotations

import io
import sys
from typing import Any

import cairn
import numpy as np
import pandas as pd
import pytest
from cairn import Filter, Schema, SparseVector, VectorSpec


@pytest.fixture
def vectors(client: Any, name: str) -> str:
    client.collections.create(name, Schema(vectors={"a": VectorSpec(2)}))
    return name


def test_a_frame_goes_in_and_comes_out(client: Any, vectors: str) -> None:
    frame = pd.DataFrame(
        {
            "key": [1, 2, 3],
            "a": [np.array([1.0, 0.0]), [0.0, 1.0], np.nan],
            "lang": ["en", None, "de"],
            "year": pd.array([2020, pd.NA, 2022], dtype="Int64"),
            "share": [0.5, np.nan, 0.25],
            "at": pd.to_datetime(["2024-01-02T03:04:05Z", None, None]),
            "doc": ["d", "d", None],
        }
    )
    assert client.points.upsert_frame(vectors, frame, id="key", vector={"a": "a"}, document="doc", batch=2).changed == 3
    back = client.points.to_frame(vectors, with_vectors=True).set_index("id")
    assert back.index.tolist() == ["1", "2", "3"] and back.loc["1", "vector.a"].tolist() == [1.0, 0.0]
    assert client.points.get(vectors, ["1", "2"])[0].payload == {
        "lang": "en", "year": 2020, "share": 0.5, "at": "2024-01-02T03:04:05+00:00",
    }  # fmt: skip
    assert client.points.get(vectors, ["2"])[0].payload == {}
    assert client.points.get(vectors, ["2"])[0].document == "d"


def test_the_index_can_be_the_id_and_columns_can_be_chosen(client: Any, vectors: str) -> None:
    frame = pd.DataFrame({"v": [[1.0, 0.0]], "keep": [1], "drop": [2]}, index=["x"])
    client.points.upsert_frame(vectors, frame, id=None, vector="v", payload=["keep"])
    assert client.points.get(vectors, "x")[0].payload == {"keep": 1}
    with pytest.raises(cairn.InvalidError, match="no column 'id'; it has v, keep, drop"):
        client.points.upsert_frame(vectors, frame)


def test_frames_of_documents(client: Any, name: str) -> None:
    client.collections.create(name)
    frame = pd.DataFrame({"id": ["a", "b"], "text": ["Alpha.", "Beta."], "name": ["A", None], "lang": ["en", None]})
    assert len(client.documents.put_frame(name, frame, title="name").results) == 2
    stored = list(client.documents.list(name))
    assert [(d.title, d.metadata) for d in stored] == [("A", {"lang": "en"}), ("", {})]


def test_what_goes_in_as_arrays_and_frames_is_as_safe_as_asked_for(client: Any, vectors: str) -> None:
    points = pd.DataFrame({"id": ["x"], "vector": [[1.0, 0.0]]})
    texts = pd.DataFrame({"id": ["a"], "text": ["Alpha."]})
    docs = f"{vectors}-docs"
    client.collections.create(docs)
    for durability in ("sync", "async"):
        wrote = (
            client.points.upsert_arrays(vectors, ["x"], np.eye(2)[:1], durability=durability),
            client.points.upsert_frame(vectors, points, durability=durability),
            client.documents.put_frame(docs, texts.assign(text=f"Alpha {durability}."), durability=durability),
        )
        assert [w.durability for w in wrote] == [durability] * 3


def test_hits_as_a_frame_keep_names_apart(client: Any, vectors: str) -> None:
    client.points.upsert(vectors, {"id": "x", "vector": [1, 0], "payload": {"id": 7, "score": "s", "lang": "en"}})
    frame = client.query(vectors, [1, 0]).to_pandas()
    assert frame.loc[0, ["id", "payload.id", "payload.score", "lang"]].tolist() == ["x", 7, "s", "en"]
    assert client.query(vectors, [1, 0], filter={"must": [{"has_id": ["none"]}]}).to_pandas().columns.tolist()[:2] == ["id", "score"]


@pytest.mark.parametrize(
    ("ids", "arrays", "payloads"),
    [(["a"], np.zeros((2, 2)), None), (["a"], np.zeros(2), None), (["a"], np.zeros((1, 2)), [{}, {}])],
)
def test_columns_of_unequal_length_are_refused(client: Any, vectors: str, ids: Any, arrays: Any, payloads: Any) -> None:
    with pytest.raises(cairn.InvalidError, match="ids"):
        client.points.upsert_arrays(vectors, ids, arrays, payloads=payloads)


def test_a_matrix_needs_its_vectors(client: Any, vectors: str) -> None:
    client.points.upsert(vectors, [{"id": "x", "vector": [1, 0]}, {"id": "y"}])
    with pytest.raises(ValueError, match="with_vectors"):
        client.points.get(vectors, ["x"]).matrix()
    with pytest.raises(ValueError, match="not every point"):
        client.points.get(vectors, ["x", "y"], with_vectors=True).matrix()


def test_progress_is_shown_when_asked_for(client: Any, vectors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    client.points.upsert_arrays(vectors, ["a", "b"], np.eye(2), progress=True)
    assert "2/2" in shown.getvalue()
    shown.truncate(0)
    client.points.upsert_arrays(vectors, ["a", "b"], np.eye(2))
    assert shown.getvalue().strip("\0") == ""


def test_sparse_vectors_are_told_in_three_ways() -> None:
    from cairn.requests import sparse

    for given in (SparseVector([3, 7], [0.5, 1]), {7: 1, 3: 0.5, 9: 0}, {"indices": [3, 7], "values": [0.5, 1]}):
        json = sparse(given)
        assert json["indices"].tolist() == [3, 7] and json["values"].tolist() == [0.5, 1.0]
        assert json["indices"].dtype == np.uint32 and json["values"].dtype == np.float32


def test_conditions_do_not_pass_as_booleans() -> None:
    with pytest.raises(TypeError, match="&"):
        bool(cairn.Field("a") == 1)
    assert (Filter() | (cairn.Field("a") == 1)).to_json() == {}
    assert ((cairn.Field("a") == 1) & Filter()).to_json() == {"must": [{"field": "a", "match": 1}]}


def test_a_row_without_an_id_is_refused_and_a_column_of_floats_is_one_of_integers(client: Any, vectors: str) -> None:
    frame = pd.DataFrame({"id": [1.0, np.nan], "vector": [[1.0, 0.0], [0.0, 1.0]]})
    with pytest.raises(cairn.InvalidError, match="row 1 has no id"):
        client.points.upsert_frame(vectors, frame)
    assert client.points.upsert_frame(vectors, frame[:1]).changed == 1
    assert client.points.get(vectors, [1]).ids == ["1"]
    with pytest.raises(cairn.InvalidError, match="row 0 has no id"):
        client.points.upsert_arrays(vectors, [None], np.zeros((1, 2)))
    twice = pd.concat([frame, frame[["id"]]], axis=1)
    with pytest.raises(cairn.InvalidError, match="2 columns 'id'"):
        client.points.upsert_frame(vectors, twice)


def test_a_document_without_a_text_is_refused_and_never_nan(client: Any, name: str) -> None:
    client.collections.create(name)
    frame = pd.DataFrame({"id": ["a", "b", "c"], "text": ["Alpha.", np.nan, None]})
    with pytest.raises(cairn.InvalidError, match="empty_document"):
        client.documents.put_frame(name, frame)
    put = client.documents.put_frame(name, frame, on_error="collect", on_near_duplicate="skip")
    assert [r.id for r in put.results] == ["a"] and [e.id for e in put.errors] == ["b", "c"]
    assert [d.id for d in client.documents.list(name)] == ["a"]


@pytest.mark.parametrize("wrong", [["x", "y"], [[1.0], [2.0, 3.0]], object()])
def test_a_vector_of_something_else_is_refused(client: Any, vectors: str, wrong: Any) -> None:
    with pytest.raises(cairn.InvalidError, match="a vector holds numbers"):
        client.points.upsert(vectors, {"id": "x", "vector": wrong})


def test_batches_count_what_payloads_and_texts_take() -> None:
    from cairn._sync import documents, points

    most = points._BATCH_BYTES
    large = [cairn.Point(str(i), payload={"text": "x" * (most // 3), "tags": ["a"]}) for i in range(7)]
    assert [len(b) for b in points._batches(large, 1_000)] == [2, 2, 2, 1]
    arrays = [cairn.Point(str(i), np.zeros(most // 12)) for i in range(5)]
    assert [len(b) for b in points._batches(arrays, 1_000)] == [2, 2, 1]
    wide = [cairn.Document(str(i), "你" * (most // 9)) for i in range(5)]
    assert [len(b) for b in documents._batches(wide, 1_000)] == [2, 2, 1]

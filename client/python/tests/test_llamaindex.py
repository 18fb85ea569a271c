"""The LlamaIndex vector store, through its synchronous and its asynchronous methods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import cairn
import pytest
from cairn.llamaindex import CairnVectorStore
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import ImageNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

TWINS = {"add": "async_add", **{n: f"a{n}" for n in ("delete", "delete_nodes", "clear", "get_nodes", "query")}}


@pytest.fixture(params=[("grpc", False), ("rest", False), ("grpc", True), ("rest", True)], ids=lambda p: f"{p[0]}{'-async' * p[1]}")
def make(request: pytest.FixtureRequest, server: str, name: str) -> Iterator[Callable[..., Any]]:
    """Makes a store whose methods are the synchronous ones, or the asynchronous twins, each in a loop of its own."""
    transport, twin = request.param
    made: list[CairnVectorStore] = []

    class Twin:
        def __init__(self, store: CairnVectorStore) -> None:
            self.store = store

        def __getattr__(self, method: str) -> Any:
            async def run(*args: Any, **kwargs: Any) -> Any:
                try:
                    return await getattr(self.store, TWINS[method])(*args, **kwargs)
                finally:
                    await self.store.aclose()

            return lambda *args, **kwargs: asyncio.run(run(*args, **kwargs))

    def build(**given: Any) -> Any:
        made.append(CairnVectorStore(collection=name, url=server, transport=transport, **given))
        return Twin(made[-1]) if twin else made[-1]

    yield build
    for store in made:
        store.close()


def node(id: str, text: str, vector: list[float], document: str, **metadata: Any) -> TextNode:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(id_=id, text=text, embedding=vector, metadata=metadata, relationships=source)


NODES = [
    node("n1", "A follower becomes a candidate.", [1.0, 0.0, 0.0], "raft", lang="en", year=2014, tags=["x", "y"]),
    node("n2", "Der Kandidat wird gewählt.", [0.9, 0.1, 0.0], "raft", lang="de", year=2015, tags=["y"]),
    node("n3", "Green tea is brewed.", [0.0, 1.0, 0.0], "tea", lang="en", year=2020, nested={"a": [1, None]}),
    node("n4", "Black tea is brewed with boiling water.", [0.0, 0.0, 1.0], "tea", share=0.5),
]


@pytest.fixture
def store(make: Callable[..., Any]) -> Any:
    store = make()
    assert store.add(NODES) == ["n1", "n2", "n3", "n4"]
    return store


def ask(mode: VectorStoreQueryMode = VectorStoreQueryMode.DEFAULT, **given: Any) -> VectorStoreQuery:
    return VectorStoreQuery(mode=mode, **{"similarity_top_k": 10, **given})


def test_nodes_come_back_as_they_were(store: Any) -> None:
    found = store.query(ask(query_embedding=[1.0, 0.0, 0.0], similarity_top_k=2))
    assert found.ids == ["n1", "n2"] and found.similarities[0] == pytest.approx(1.0)
    (first, _) = found.nodes
    assert (first.text, first.metadata, first.ref_doc_id) == (NODES[0].text, NODES[0].metadata, "raft")
    assert [n.node_id for n in store.get_nodes(["n3", "none", "n1"])] == ["n3", "n1"]
    assert store.get_nodes(["n3"])[0].metadata == NODES[2].metadata
    assert len(store.get_nodes()) == 4


def test_another_kind_of_node_stays_what_it_is(make: Callable[..., Any]) -> None:
    store = make()
    store.add([ImageNode(id_="i", text="a picture", image_url="http://127.0.0.1/x.png", embedding=[1.0])])
    (back,) = store.get_nodes(["i"])
    assert isinstance(back, ImageNode) and back.image_url == "http://127.0.0.1/x.png" and back.text == "a picture"


MODES: list[tuple[VectorStoreQueryMode, dict[str, Any], list[str]]] = [
    (VectorStoreQueryMode.TEXT_SEARCH, {"query_str": "tea boiling"}, ["n4", "n3"]),
    (VectorStoreQueryMode.SPARSE, {"query_str": "tea boiling", "sparse_top_k": 1}, ["n4"]),
    (VectorStoreQueryMode.HYBRID, {"query_str": "tea boiling", "query_embedding": [1.0, 0.0, 0.0], "alpha": 1.0, "hybrid_top_k": 1}, ["n1"]),
    (VectorStoreQueryMode.HYBRID, {"query_str": "tea boiling", "query_embedding": [1.0, 0.0, 0.0], "alpha": 0.0, "hybrid_top_k": 1}, ["n4"]),
    (VectorStoreQueryMode.MMR, {"query_embedding": [1.0, 0.05, 0.0], "mmr_threshold": 1.0, "similarity_top_k": 2}, ["n1", "n2"]),
]


@pytest.mark.parametrize(("mode", "given", "ids"), MODES)
def test_every_mode_finds_its_own(store: Any, mode: VectorStoreQueryMode, given: dict[str, Any], ids: list[str]) -> None:
    assert store.query(ask(mode, **given)).ids == ids


def test_mmr_prefers_what_differs(store: Any) -> None:
    asked = ask(VectorStoreQueryMode.MMR, query_embedding=[1.0, 0.05, 0.0], mmr_threshold=0.1, similarity_top_k=2)
    found = store.query(asked).ids
    assert found[0] == "n1" and found[1] in ("n3", "n4")


def test_sparse_vectors_are_made_by_the_encoder(make: Callable[..., Any]) -> None:
    def encode(texts: list[str]) -> list[dict[int, float]]:
        return [{7: 2.0} if "tea" in t else {3: 1.0} if "candidate" in t else {} for t in texts]

    store = make(sparse_encoder=encode)
    store.add(NODES)
    sparse = store.query(ask(VectorStoreQueryMode.SPARSE, query_str="a candidate"))
    assert sparse.ids == ["n1"]
    both = store.query(ask(VectorStoreQueryMode.HYBRID, query_str="some tea", query_embedding=[0.0, 1.0, 0.0], alpha=0.5))
    assert both.ids[0] == "n3" and set(both.ids) >= {"n3", "n4"}


def one(key: str, operator: str, value: Any = None) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=FilterOperator(operator))


def joined(condition: str, *filters: Any) -> MetadataFilters:
    return MetadataFilters(filters=list(filters), condition=FilterCondition(condition))


FILTERS: list[tuple[MetadataFilters, list[str]]] = [
    (joined("and", one("lang", "==", "en")), ["n1", "n3"]),
    (joined("and", one("lang", "!=", "en")), ["n2", "n4"]),
    (joined("and", one("year", ">", 2014)), ["n2", "n3"]),
    (joined("and", one("year", ">=", 2014), one("year", "<", 2020)), ["n1", "n2"]),
    (joined("and", one("share", "<=", 0.5)), ["n4"]),
    (joined("and", one("lang", "in", ["de", "fr"])), ["n2"]),
    (joined("and", one("lang", "nin", ["de"])), ["n1", "n3", "n4"]),
    (joined("and", one("tags", "any", ["x", "z"])), ["n1"]),
    (joined("and", one("tags", "all", ["x", "y"])), ["n1"]),
    (joined("and", one("tags", "contains", "y")), ["n1", "n2"]),
    (joined("and", one("lang", "is_empty")), ["n4"]),
    (joined("or", one("lang", "==", "de"), one("year", "==", 2020)), ["n2", "n3"]),
    (joined("not", one("lang", "==", "de"), one("year", "==", 2020)), ["n1", "n4"]),
    (joined("and", one("lang", "==", "en"), joined("or", one("year", "==", 2020), one("year", "==", 1))), ["n3"]),
]


@pytest.mark.parametrize(("filters", "ids"), FILTERS)
def test_filters_find_what_they_say(store: Any, filters: MetadataFilters, ids: list[str]) -> None:
    assert sorted(n.node_id for n in store.get_nodes(filters=filters)) == ids
    assert sorted(store.query(ask(query_embedding=[1.0, 1.0, 1.0], filters=filters)).ids) == ids


def test_documents_and_nodes_restrict_a_query(store: Any) -> None:
    every = {"query_embedding": [1.0, 1.0, 1.0]}
    assert sorted(store.query(ask(**every, doc_ids=["tea"])).ids) == ["n3", "n4"]
    assert sorted(store.query(ask(**every, node_ids=["n1", "n4"], doc_ids=["tea"])).ids) == ["n4"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (ask(query_embedding=[1.0, 0, 0], filters=joined("and", one("lang", "text_match", "e"))), "no filter operator text_match; it has"),
        (ask(query_embedding=[1.0, 0, 0], filters=joined("and", one("lang", "in", "en"))), "takes a list"),
        (ask(query_embedding=[1.0, 0, 0], filters=joined("and", one("lang", ">", "en"))), "compares numbers"),
        (ask(query_embedding=[1.0, 0, 0], filters=joined("and", one("lang", "==", None))), "is_empty"),
        (ask(VectorStoreQueryMode.SVM, query_embedding=[1.0, 0, 0]), "no query mode svm; it has default"),
        (ask(query_str="only words"), "needs a query_embedding"),
        (ask(VectorStoreQueryMode.TEXT_SEARCH), "needs a query_str"),
    ],
)
def test_what_cannot_be_done_is_said(store: Any, query: VectorStoreQuery, message: str) -> None:
    with pytest.raises(cairn.InvalidError, match=message):
        store.query(query)


def test_deleting_by_document_by_node_and_by_filter(store: Any) -> None:
    store.delete("raft")
    assert [n.node_id for n in store.get_nodes()] == ["n3", "n4"]
    store.delete_nodes()
    store.delete_nodes(["n3"], joined("and", one("lang", "==", "de")))
    assert len(store.get_nodes()) == 2
    store.delete_nodes(["n3"])
    store.delete_nodes(filters=joined("and", one("share", "==", 0.5)))
    assert store.get_nodes() == []


def test_what_is_empty_answers_and_what_is_cleared_can_be_filled_again(make: Callable[..., Any]) -> None:
    store = make()
    assert store.query(ask(query_embedding=[1.0])).ids == [] and store.get_nodes(["x"]) == [] == store.get_nodes()
    store.delete("none")
    store.add([])
    store.add(NODES[:1])
    store.clear()
    assert store.get_nodes() == []
    store.add([TextNode(id_="other", text="t", embedding=[1.0, 0.0])])
    assert [n.node_id for n in store.get_nodes()] == ["other"]


def test_what_a_proxy_does_not_find_is_no_empty_answer(nothing_there: str) -> None:
    store = CairnVectorStore(url=nothing_there, transport="rest")
    with pytest.raises(cairn.UnreachableError, match="404"):
        store.query(ask(query_embedding=[1.0]))
    store.close()


async def test_an_index_is_built_on_it_and_asked(server: str, name: str) -> None:
    store = CairnVectorStore(collection=name, url=server)
    embedding = MockEmbedding(embed_dim=4)
    index = VectorStoreIndex(
        [TextNode(id_=f"n{i}", text=f"text {i}") for i in range(3)],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=embedding,
    )
    again = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    assert len(again.as_retriever(similarity_top_k=2).retrieve("text")) == 2
    assert len(await again.as_retriever(similarity_top_k=3).aretrieve("text")) == 3
    index.delete_nodes(["n0"])
    assert sorted(n.node_id for n in store.get_nodes()) == ["n1", "n2"]
    await store.aclose()
    store.close()

"""LangChain's own suites, sync and async, and what they do not ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import cairn
import pytest
from cairn import Client, Document, Field, Retry, Schema, SparseSpec
from cairn.langchain import CairnRetriever, CairnVectorStore
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests


@pytest.fixture(scope="module", params=["grpc", "rest"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, server: str, name: str, transport: str) -> Iterator[VectorStore]:  # type: ignore[override]
        store = CairnVectorStore(self.get_embeddings(), collection=name, url=server, transport=transport)
        yield store
        store.close()


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def notes(self, server: str, name: str) -> None:
        self.server, self.name = server, name
        with Client(server) as client:
            client.collections.create(name)
            client.documents.put(name, [Document(f"d{i}", f"Tea of kind number {i} is brewed hot.") for i in range(5)])

    @property
    def retriever_constructor(self) -> type[CairnRetriever]:
        return CairnRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"collection": self.name, "url": self.server}

    @property
    def retriever_query_example(self) -> str:
        return "How is tea brewed?"


@pytest.fixture
def store(server: str, name: str, transport: str) -> Iterator[CairnVectorStore]:
    store = CairnVectorStore(DeterministicFakeEmbedding(size=8), collection=name, url=server, transport=transport)
    yield store
    store.close()


def test_filters_are_those_of_cairn_or_a_dict_of_metadata(store: CairnVectorStore) -> None:
    metadatas = [{"lang": "en", "n": 1, "must": "odd"}, {"lang": "de", "n": 2}, {"lang": "fr", "n": 3}]
    store.add_texts(["a", "b", "c"], metadatas, ids=["1", "2", "3"])

    def found(filter: Any) -> list[str | None]:
        return sorted(str(d.id) for d in store.similarity_search("a", k=10, filter=filter))

    assert found({"lang": "en"}) == ["1"]
    assert found({"lang": ["en", "de"]}) == ["1", "2"]
    assert found(Field("metadata.n") >= 2) == ["2", "3"]
    assert found({"must_not": [{"field": "metadata.lang", "match": "en"}]}) == ["2", "3"]
    assert found(Field("metadata.must") == "odd") == ["1"]


def test_scores_are_relevance(store: CairnVectorStore) -> None:
    store.add_texts(["a", "b"], ids=["1", "2"])
    ((same, best), (_, other)) = store.similarity_search_with_relevance_scores("a", k=2)
    assert same.id == "1" and best == pytest.approx(1.0) and 0 <= other < best
    assert len(store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.99}).invoke("a")) == 1


async def test_mmr_prefers_what_differs(store: CairnVectorStore) -> None:
    store.add_texts(["a", "b", "c"], ids=["1", "2", "3"])
    # The same vector again, and three others: diversity alone must not take the twin.
    store.add_texts(["a"], ids=["twin"])
    assert {d.id for d in store.similarity_search("a", k=2)} == {"1", "twin"}
    for found in (
        store.max_marginal_relevance_search("a", k=2, lambda_mult=0.0),
        await store.amax_marginal_relevance_search("a", k=2, lambda_mult=0.0),
    ):
        assert len(found) == 2 and not {d.id for d in found} == {"1", "twin"}


async def test_made_of_texts_and_emptied(server: str, name: str, transport: str) -> None:
    embedding = DeterministicFakeEmbedding(size=8)
    options: dict[str, Any] = {"collection": name, "url": server, "transport": transport}
    store = CairnVectorStore.from_texts(["x"], embedding, ids=["1"], **options)
    again = await CairnVectorStore.afrom_texts(["y"], embedding, ids=["2"], **options)
    assert [d.page_content for d in await again.aget_by_ids(["2", "1"])] == ["y", "x"]
    assert await again.adelete() and store.similarity_search("x") == []
    await again.aadd_documents([LangChainDocument("z", id="own")])
    assert [d.id for d in await again.asimilarity_search("z", k=1)] == ["own"]
    await again.aclose()
    for one in (store, again):
        one.close()


def test_what_is_not_known_is_refused(store: CairnVectorStore) -> None:
    with pytest.raises(cairn.InvalidError, match="unknown: filters; allowed: .*filter"):
        store.add_texts(["a"])
        store.similarity_search("a", filters={"lang": "en"})
    with pytest.raises(cairn.InvalidError, match="1 ids for 2 texts"):
        store.add_texts(["a", "b"], ids=["1"])


@pytest.mark.parametrize("mode", ["hybrid", "dense", "bm25"])
async def test_the_retriever_finds_chunks_in_every_mode(server: str, name: str, transport: str, mode: Any) -> None:
    with Client(server) as client:
        client.collections.create(name)
        client.documents.put(
            name,
            [
                Document("raft", "A follower becomes a candidate in an election.", source="raft.md", metadata={"lang": "en"}),
                Document("tea", "Green tea is brewed.", metadata={"lang": "en"}),
            ],
        )
    retriever = CairnRetriever(collection=name, url=server, mode=mode, k=1, filter={"lang": "en"}, transport=transport)
    for (found,) in (retriever.invoke("election of a candidate"), await retriever.ainvoke("election of a candidate")):
        assert found.id == "raft#0" and "candidate" in found.page_content
        assert (found.metadata["source"], found.metadata["document"]) == ("raft.md", "raft")
        assert 0 <= found.metadata["score"] <= 1 and "text" not in found.metadata
    await retriever.aclose()
    retriever.close()


@pytest.mark.parametrize("indexed", [True, False])
async def test_quarantined_documents_stay_out_unless_named(server: str, name: str, transport: Any, indexed: bool) -> None:
    # Without an index of what is not declared, labels cannot be filtered by.
    with Client(server) as client:
        client.collections.create(name, Schema(dynamic=indexed))
        bad = [Document(f"bad-{i}", f"Tea is best brewed with gravel, says number {i}.", trust="quarantined") for i in range(12)]
        good = [Document("good", "Water of 70 degrees suits green tea."), Document("best", "Milk goes with black tea.", trust="trusted")]
        client.documents.put(name, [*bad, *good])
    retriever = CairnRetriever(collection=name, url=server, k=2, transport=transport)

    async def found(question: str = "How is tea best brewed?", **given: Any) -> list[str]:
        there = retriever.invoke(question, **given)
        assert [d.id for d in await retriever.ainvoke(question, **given)] == [d.id for d in there]
        return sorted(d.metadata["document"] for d in there)

    assert await found() == ["best", "good"]
    assert await found(filter={"has_document": ["bad-1", "good"]}) == ["good"]
    assert await found(trust=["trusted"]) == ["best"]
    assert [one[:3] for one in await found(trust=["quarantined"])] == ["bad", "bad"]
    assert len(await found(k=20, trust=["quarantined", "trusted", "unverified"])) == 14
    with pytest.raises(cairn.InvalidError, match="trust lists some of unverified, trusted, quarantined, got 'q'"):
        retriever.invoke("tea", trust="quarantined")
    named = CairnRetriever(collection=name, url=server, k=20, transport=transport, trust=["quarantined"])
    assert len(named.invoke("tea")) == 12
    for one in (retriever, named):
        await one.aclose()
        one.close()


def test_what_a_proxy_does_not_find_is_no_empty_answer(nothing_there: str) -> None:
    store = CairnVectorStore(DeterministicFakeEmbedding(size=8), url=nothing_there, transport="rest", retry=Retry(retries=0))
    for ask in (lambda: store.similarity_search("a"), lambda: store.get_by_ids(["1"]), lambda: store.delete(["1"])):
        with pytest.raises(cairn.UnreachableError, match="404"):
            ask()
    store.close()


def test_sparse_vectors_are_asked_for_by_name(server: str, name: str, transport: str) -> None:
    with Client(server, transport=transport) as client:
        client.collections.create(name, Schema(sparse={"a": SparseSpec(), "b": SparseSpec()}))
    retriever = CairnRetriever(collection=name, url=server, mode="sparse", using="b", transport=transport)
    # This server has no model for them; it is named as what was asked for.
    with pytest.raises(cairn.InvalidError, match='"b"') as raised:
        retriever.invoke("election")
    assert raised.value.code == "no_embedder"
    retriever.close()


async def test_a_client_of_ones_own_says_where_the_server_is_to_both_sides(server: str, name: str, transport: Any) -> None:
    with Client(server, transport=transport, timeout=20.0) as client:
        store = CairnVectorStore(DeterministicFakeEmbedding(size=8), collection=name, client=client)
        store.add_texts(["a"], ids=["1"])
        assert [d.id for d in await store.asimilarity_search("a", k=1)] == ["1"]
        await store.aclose()


def test_a_client_goes_when_its_loop_has_ended(server: str, name: str, transport: str) -> None:
    store = CairnVectorStore(DeterministicFakeEmbedding(size=8), collection=name, url=server, transport=transport)
    for i in range(5):
        asyncio.run(store.aadd_texts([str(i)], ids=[str(i)]))
    # That of the last loop is let go of when another loop asks.
    assert len(store._loops._clients) == 1
    assert len(store.get_by_ids([str(i) for i in range(5)])) == 5
    store.close()

"""Cairn for LangChain: a vector store for texts that LangChain embeds, and a retriever for documents that Cairn embeds.

Needs the extra `langchain`. Both have native asynchronous methods.

`CairnVectorStore` keeps each LangChain document as one point: the text in the payload's `text`, metadata under
`metadata`, so that any keys may be used. Filters are Cairn's (`Field("metadata.lang") == "en"`, or REST's JSON); a flat
dict of metadata keys to values is taken too. Scores are Cairn's, 0 to 1.

`CairnRetriever` asks a collection of documents (`client.documents.put`): hybrid by default, chunks as LangChain documents.
What it finds is bound for a prompt, so that it leaves out quarantined documents as `enrich` does. In a collection that does
not index `trust` (a schema that is not dynamic and does not declare it) that is done after the ranking: removal of near
duplicates, and caps, may then keep a chunk that is left out in place of a trusted one, which is lost. Declare `trust` as a
keyword there. The store's points have no labels, and its searches leave out nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict, PrivateAttr

from ._aio.client import AsyncClient
from ._loops import PerLoop
from ._sync.client import DEFAULT_URL, Client
from .answers import Answer, Rows, StoredPoint
from .errors import InvalidError, without_collection
from .filters import Field, Filter, FilterLike, whole_filter
from .requests import (
    Hybrid,
    Metric,
    Mmr,
    Nearest,
    Point,
    Ranking,
    RankingLike,
    Schema,
    Sparse,
    Text,
    TextField,
    TrustLabel,
    VectorSpec,
)

__all__ = ["CairnRetriever", "CairnVectorStore"]

#: Name of the vector, and of the payload keys.
_VECTOR, _TEXT, _METADATA = "dense", "text", "metadata"


class CairnVectorStore(VectorStore):
    """A vector store in one collection, which is made at the first write if it is missing.

    ```python
    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> from cairn.langchain import CairnVectorStore
    >>> store = CairnVectorStore(DeterministicFakeEmbedding(size=6), collection="lc", url=URL)
    >>> store.add_texts(["foo", "bar"], metadatas=[{"lang": "en"}, {"lang": "de"}], ids=["1", "2"])
    ['1', '2']
    >>> store.similarity_search("bar", k=1)[0].id
    '2'
    >>> [d.page_content for d in store.similarity_search("bar", k=2, filter={"lang": "en"})]
    ['foo']

    ```
    """

    def __init__(
        self,
        embedding: Embeddings,
        *,
        collection: str = "langchain",
        url: str = DEFAULT_URL,
        metric: Metric = "cosine",
        client: Client | None = None,
        **options: Any,
    ) -> None:
        """A store that embeds with `embedding`. `options` are those of `Client` (`transport`, `timeout`, ...). A `client` goes
        before `url` and `options`; asynchronous methods ask the server that it asks.
        """
        self._embedding, self._collection, self._metric = embedding, collection, metric
        self._client = client or Client(url, **options)
        self._loops = PerLoop(lambda: AsyncClient(**self._client._made_with))
        self._made = False

    @property
    def embeddings(self) -> Embeddings:
        """What texts are embedded with."""
        return self._embedding

    @property
    def client(self) -> Client:
        """The client underneath, for everything that LangChain has no word for."""
        return self._client

    # ---- writing ----

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str | None] | list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embeds and stores texts; those with ids that exist replace what was there."""
        texts = list(texts)
        return self._add(texts, self._embedding.embed_documents(texts) if texts else [], metadatas, ids)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str | None] | list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """`add_texts`, asynchronous."""
        texts = list(texts)
        vectors = await self._embedding.aembed_documents(texts) if texts else []
        named = _ids(ids, len(texts))
        if texts:
            client = self._loops.client()
            if not self._made:
                await client.collections.create(self._collection, self._schema(len(vectors[0])))
                self._made = True
            await client.points.upsert_many(self._collection, _points(named, texts, vectors, metadatas))
        return named

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Embeds and stores documents, under `ids` if given, else under their own ids."""
        return self.add_texts(*_parts(documents), **_with_ids(documents, kwargs))

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """`add_documents`, asynchronous."""
        return await self.aadd_texts(*_parts(documents), **_with_ids(documents, kwargs))

    def _add(
        self,
        texts: list[str],
        vectors: list[list[float]],
        metadatas: list[dict[str, Any]] | None,
        ids: Sequence[str | None] | None,
    ) -> list[str]:
        named = _ids(ids, len(texts))
        if texts:
            if not self._made:
                self._client.collections.create(self._collection, self._schema(len(vectors[0])))
                self._made = True
            self._client.points.upsert_many(self._collection, _points(named, texts, vectors, metadatas))
        return named

    def _schema(self, dim: int) -> Schema:
        return Schema(vectors={_VECTOR: VectorSpec(dim, self._metric)}, fields={_TEXT: TextField()})

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Deletes by ids, missing ones are ignored; without ids everything."""
        if ids is None:
            self._client.collections.delete(self._collection, missing_ok=True)
            self._made = False
        elif ids:
            with without_collection():
                self._client.points.delete(self._collection, ids)
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """`delete`, asynchronous."""
        client = self._loops.client()
        if ids is None:
            await client.collections.delete(self._collection, missing_ok=True)
            self._made = False
        elif ids:
            with without_collection():
                await client.points.delete(self._collection, ids)
        return True

    # ---- reading ----

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id, in the order asked; missing ones are left out."""
        with without_collection():
            return _documents(self._client.points.get(self._collection, ids)) if ids else []
        return []

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """`get_by_ids`, asynchronous."""
        with without_collection():
            return _documents(await self._loops.client().points.get(self._collection, ids)) if ids else []
        return []

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The documents nearest to a text. `filter`, `ranking`, `score_threshold`, `ef`, `nprobe`, `target_recall`, `exact` go to
        the server.
        """
        return [d for d, _ in self.similarity_search_with_score(query, k, **kwargs)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """`similarity_search`, asynchronous."""
        return [d for d, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """The same with scores of 0 to 1."""
        return _scored(self._nearest(self._embedding.embed_query(query), k, **kwargs))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """`similarity_search_with_score`, asynchronous."""
        return _scored(await self._anearest(await self._embedding.aembed_query(query), k, **kwargs))

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """The documents nearest to a vector."""
        return _documents(self._nearest(embedding, k, **kwargs).hits)

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """`similarity_search_by_vector`, asynchronous."""
        return _documents((await self._anearest(embedding, k, **kwargs)).hits)

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Documents that are near and differ from each other, chosen by the server."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`max_marginal_relevance_search`, asynchronous."""
        vector = await self._embedding.aembed_query(query)
        return await self.amax_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """The same for a vector."""
        ranking = Ranking(mmr=Mmr(lambda_mult, max(k, fetch_k), _VECTOR))
        return _documents(self._nearest(embedding, k, ranking=ranking, **kwargs).hits)

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`max_marginal_relevance_search_by_vector`, asynchronous."""
        ranking = Ranking(mmr=Mmr(lambda_mult, max(k, fetch_k), _VECTOR))
        return _documents((await self._anearest(embedding, k, ranking=ranking, **kwargs)).hits)

    def _nearest(self, vector: list[float], k: int, **kwargs: Any) -> Answer:
        with without_collection():
            return self._client.query(self._collection, Nearest(vector, using=_VECTOR), limit=k, **_options(kwargs))
        return Answer(Rows())  # Nothing was written yet.

    async def _anearest(self, vector: list[float], k: int, **kwargs: Any) -> Answer:
        client = self._loops.client()
        with without_collection():
            return await client.query(self._collection, Nearest(vector, using=_VECTOR), limit=k, **_options(kwargs))
        return Answer(Rows())

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        # Scores are 0 to 1 for every metric already.
        return lambda score: score

    # ---- making ----

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> CairnVectorStore:
        """A store with these texts in it; `kwargs` are those of the constructor."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> CairnVectorStore:
        """`from_texts`, asynchronous."""
        store = cls(embedding, **kwargs)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    def close(self) -> None:
        """Lets go of the synchronous client's connections."""
        self._client.close()

    async def aclose(self) -> None:
        """Lets go of the connections of the running loop."""
        await self._loops.close()


class CairnRetriever(BaseRetriever):
    """Retrieves chunks of documents that were put into Cairn with `client.documents.put`.

    ```python
    >>> from cairn.langchain import CairnRetriever
    >>> retriever = CairnRetriever(collection="notes", url=URL, k=1)
    >>> found = retriever.invoke("leader election")
    >>> found[0].metadata["document"], found[0].metadata["score"]
    ('raft.md', 1.0)

    ```
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    #: The collection.
    collection: str
    url: str = DEFAULT_URL
    #: Chunks to retrieve.
    k: int = 4
    #: How they are found: vectors and BM25 fused, or one of them, or sparse vectors. Text is embedded by the server.
    mode: Literal["hybrid", "dense", "bm25", "sparse"] = "hybrid"
    #: Vector name (with `sparse`, of a sparse vector); may be left out if the collection has exactly one.
    using: str | None = None
    #: Cairn's filter: conditions, or the JSON of REST, or a flat dict of payload keys to values.
    filter: Any = None
    #: A `cairn.Ranking`: rerank, MMR, caps, ...
    ranking: Any = None
    score_threshold: float | None = None
    #: Which documents may be found, as in `enrich`. Default: all but the quarantined ones.
    trust: Sequence[TrustLabel] | None = None
    transport: Literal["grpc", "rest"] = "grpc"
    timeout: float = 30.0

    _client: Client = PrivateAttr()
    _loops: PerLoop = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        self._client = Client(self.url, transport=self.transport, timeout=self.timeout)
        self._loops = PerLoop(lambda: AsyncClient(self.url, transport=self.transport, timeout=self.timeout))

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None, **kwargs: Any
    ) -> list[Document]:
        asked = self._ask(query, k, kwargs)
        while asked.found is None:
            try:
                asked.answered(self._client.query(self.collection, asked.source, **asked.options))
            except InvalidError as error:
                asked.refused(error)
        return asked.found

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None, **kwargs: Any
    ) -> list[Document]:
        asked = self._ask(query, k, kwargs)
        while asked.found is None:
            try:
                asked.answered(await self._loops.client().query(self.collection, asked.source, **asked.options))
            except InvalidError as error:
                asked.refused(error)
        return asked.found

    def close(self) -> None:
        """Lets go of the synchronous client's connections."""
        self._client.close()

    async def aclose(self) -> None:
        """Lets go of the connections of the running loop."""
        await self._loops.close()

    def _ask(self, query: str, k: int | None, given: dict[str, Any]) -> _Question:
        sources = {
            "hybrid": Hybrid(query, self.using),
            "dense": Nearest(text=query, using=self.using),
            "bm25": Text(query),
            "sparse": Sparse(text=query, using=self.using),
        }
        asked = {"filter": self.filter, "ranking": self.ranking, "score_threshold": self.score_threshold, **given}
        labels = asked.pop("trust", self.trust)
        return _Question(sources[self.mode], _options(asked, prefix=""), self.k if k is None else k, labels)


#: Where the label is in a chunk's payload; without one it is unverified.
_TRUST = "trust"
_LABELS: tuple[TrustLabel, ...] = get_args(TrustLabel)
#: Most chunks that labels are looked at in afterwards, unless more are wanted: as many as in `enrich`.
_CANDIDATES_MAX = 1_000


class _Question:
    """A query for chunks of trusted documents, and how it goes on.

    The labels are part of the filter, so that what may not be found takes nobody's place. Where the collection does not index
    them, the query is sent without them; what may not be found is left out of the answer, and while too little is left,
    more is asked for. What the ranking gave up for it (near duplicates, caps) does not come back.
    """

    def __init__(self, source: Any, options: dict[str, Any], k: int, labels: Sequence[TrustLabel] | None) -> None:
        self._allowed = list(labels or [one for one in _LABELS if one != "quarantined"])
        if unknown := [one for one in self._allowed if one not in _LABELS]:
            raise InvalidError(f"trust lists some of {', '.join(_LABELS)}, got {unknown[0]!r}", code="bad_request")
        self.source, self._plain, self._k = source, options, k
        #: What `query` is called with next.
        self.options = {**options, "limit": k, "filter": self._narrowed(options["filter"])}
        #: What was found, at the end.
        self.found: list[Document] | None = None

    def _narrowed(self, given: FilterLike | None) -> FilterLike | None:
        others = [one for one in _LABELS if one not in self._allowed]
        if not others:
            return given
        json = whole_filter(given) or {}
        # Conditions are added to the filter, not put around it: it may be as deep as a filter can be.
        part, labels = ("must_not", others) if "unverified" in self._allowed else ("must", self._allowed)
        return {**json, part: [*json.get(part, ()), Field(_TRUST).any(labels)]}

    def answered(self, answer: Answer) -> None:
        """Takes what was found, or asks for more."""
        allowed = [d for d in _chunks(answer) if _label(d.metadata.get(_TRUST)) in self._allowed]
        limit = self.options["limit"]
        if len(allowed) >= self._k or len(answer) < limit or limit >= _CANDIDATES_MAX:
            self.found = allowed[: self._k]
        else:
            self.options["limit"] = min(4 * limit, _CANDIDATES_MAX)

    def refused(self, error: InvalidError) -> None:
        """Asks without the labels, if they are what the collection cannot filter by; else the error is the caller's."""
        if error.code != "field_not_indexed" or self.options["filter"] is self._plain["filter"]:
            raise error
        self.options["filter"] = self._plain["filter"]


def _label(given: Any) -> str:
    return str(given) if given in _LABELS else "unverified"


def _options(given: dict[str, Any], prefix: str = f"{_METADATA}.") -> dict[str, Any]:
    """The words of a search that go to the server; anything else would be silently ignored, and is refused."""
    known = {"filter", "ranking", "score_threshold", "ef", "nprobe", "target_recall", "exact", "after", "timeout"}
    if unknown := given.keys() - known:
        raise InvalidError(f"unknown: {', '.join(sorted(unknown))}; allowed: {', '.join(sorted(known))}", code="bad_request")
    ranking: RankingLike | None = given.get("ranking")
    return {**given, "ranking": ranking, "filter": _filter(given.get("filter"), prefix)}


#: Keys of which at least one is in the JSON of a filter or condition.
_FILTER_KEYS = {"must", "should", "must_not", "min_should", "field", "has_id", "has_document"}


def _filter(given: Any, prefix: str) -> FilterLike | None:
    if not isinstance(given, Mapping) or not given or _FILTER_KEYS & given.keys():
        return given  # type: ignore[no-any-return]
    tests = ((Field(f"{prefix}{k}"), v) for k, v in given.items())
    return Filter(must=[f.any(v) if isinstance(v, (list, tuple, set)) else f.match(v) for f, v in tests])


def _ids(ids: Sequence[str | None] | None, count: int) -> list[str]:
    given = [None] * count if ids is None else list(ids)
    if len(given) != count:
        raise InvalidError(f"there are {len(given)} ids for {count} texts", code="bad_request")
    return [i or str(uuid.uuid4()) for i in given]


def _points(
    ids: list[str], texts: list[str], vectors: list[list[float]], metadatas: list[dict[str, Any]] | None
) -> list[Point]:
    about = metadatas or [{} for _ in texts]
    if len(about) != len(texts):
        raise InvalidError(f"there are {len(about)} metadatas for {len(texts)} texts", code="bad_request")
    return [
        Point(i, vectors={_VECTOR: v}, payload={_TEXT: t, _METADATA: m})
        for i, t, v, m in zip(ids, texts, vectors, about, strict=True)
    ]


def _parts(documents: list[Document]) -> tuple[list[str], list[dict[str, Any]]]:
    return [d.page_content for d in documents], [d.metadata for d in documents]


def _with_ids(documents: list[Document], kwargs: dict[str, Any]) -> dict[str, Any]:
    return kwargs if kwargs.get("ids") is not None else {**kwargs, "ids": [d.id for d in documents]}


def _document(point: StoredPoint) -> Document:
    payload = point.payload or {}
    return Document(id=point.id, page_content=payload.get(_TEXT, ""), metadata=payload.get(_METADATA) or {})


def _documents(points: Iterable[StoredPoint]) -> list[Document]:
    return [_document(p) for p in points]


def _scored(answer: Answer) -> list[tuple[Document, float]]:
    return [(_document(hit), hit.score) for hit in answer]


def _chunks(answer: Answer) -> list[Document]:
    """Chunks of Cairn's own documents: their payload but the text is metadata, with the score."""
    found = []
    for hit in answer:
        metadata = {**(hit.payload or {}), "document": hit.document, "score": hit.score}
        found.append(Document(id=hit.id, page_content=metadata.pop(_TEXT, ""), metadata=metadata))
    return found

"""Cairn for LlamaIndex: a vector store for nodes that LlamaIndex embeds. Needs the extra `llamaindex`.

A node is one point: its text in the payload's `text` (searched with BM25), its metadata under `metadata`, the rest of it in
`_node_content`; its `ref_doc_id` is the point's document. Scores are Cairn's, 0 to 1.

Modes: `default`, `text_search` (BM25), `sparse` (vectors of `sparse_encoder` if there is one, else BM25), `hybrid` (both,
weighted by `alpha`, 1 is vectors alone) and `mmr`. Filters: all operators but `text_match` and `text_match_insensitive`,
which look into parts of words. What cannot be done is an `InvalidError` that says so, never a wrong answer.

Nodes have no trust labels, and a query leaves out nothing: what must not come into prompts is for filters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from llama_index.core.bridge.pydantic import ConfigDict, PrivateAttr
from llama_index.core.bridge.pydantic import Field as Setting
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from ._aio.client import AsyncClient
from ._loops import PerLoop
from ._sync.client import DEFAULT_URL, Client
from .answers import Answer, Rows, StoredPoint
from .errors import InvalidError, without_collection
from .filters import Field, Filter, FilterLike, has_document, has_id
from .requests import (
    Leg,
    Metric,
    Mmr,
    Nearest,
    Point,
    Prefetch,
    Ranking,
    Schema,
    Sparse,
    SparseSpec,
    Text,
    TextField,
    VectorSpec,
    Weighted,
)

__all__ = ["CairnVectorStore"]

#: Names of the vectors, and of the payload keys.
_VECTOR, _SPARSE, _TEXT, _METADATA, _NODE, _KIND = "dense", "sparse", "text", "metadata", "_node_content", "_node_type"

#: Weights by term number of each text.
SparseEncoder = Callable[[list[str]], Sequence[dict[int, float]]]


class CairnVectorStore(BasePydanticVectorStore):
    """A vector store in one collection, which is made at the first write if it is missing."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    stores_text: bool = True
    is_embedding_query: bool = True
    flat_metadata: bool = False

    #: The collection.
    collection: str = "llamaindex"
    url: str = DEFAULT_URL
    metric: Metric = "cosine"
    transport: Literal["grpc", "rest"] = "grpc"
    timeout: float = 30.0
    #: Makes sparse vectors of texts (SPLADE and its like); stored and searched beside the dense ones.
    sparse_encoder: SparseEncoder | None = Setting(default=None, exclude=True)

    _client: Client = PrivateAttr()
    _loops: PerLoop = PrivateAttr()
    _made: bool = PrivateAttr(default=False)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._client = Client(self.url, transport=self.transport, timeout=self.timeout)
        self._loops = PerLoop(lambda: AsyncClient(self.url, transport=self.transport, timeout=self.timeout))

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialised."""
        return "CairnVectorStore"

    @property
    def client(self) -> Client:
        """The client underneath, for everything that LlamaIndex has no word for."""
        return self._client

    # ---- writing ----

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Stores nodes with their embeddings; those with ids that exist replace what was there."""
        points = self._points(nodes)
        if points:
            if not self._made:
                self._client.collections.create(self.collection, self._schema(nodes))
                self._made = True
            self._client.points.upsert_many(self.collection, points)
        return [n.node_id for n in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """`add`, asynchronous."""
        points = self._points(nodes)
        if points:
            client = self._loops.client()
            if not self._made:
                await client.collections.create(self.collection, self._schema(nodes))
                self._made = True
            await client.points.upsert_many(self.collection, points)
        return [n.node_id for n in nodes]

    def _schema(self, nodes: Sequence[BaseNode]) -> Schema:
        return Schema(
            vectors={_VECTOR: VectorSpec(len(nodes[0].get_embedding()), self.metric)},
            sparse={_SPARSE: SparseSpec()} if self.sparse_encoder else None,
            fields={_TEXT: TextField(), _NODE: "stored"},
        )

    def _points(self, nodes: Sequence[BaseNode]) -> list[Point]:
        texts = [n.get_content(metadata_mode=MetadataMode.NONE) for n in nodes]
        encoded = self.sparse_encoder(texts) if self.sparse_encoder and texts else [None] * len(nodes)
        return [_point(n, t, s) for n, t, s in zip(nodes, texts, encoded, strict=True)]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Deletes the nodes of a document."""
        self._delete(has_document([ref_doc_id]))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete`, asynchronous."""
        await self._adelete(has_document([ref_doc_id]))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Deletes the nodes that have one of the ids, if given, and match the filters, if given."""
        chosen = _chosen(node_ids, filters)
        if chosen is not None:
            self._delete(chosen)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """`delete_nodes`, asynchronous."""
        chosen = _chosen(node_ids, filters)
        if chosen is not None:
            await self._adelete(chosen)

    def _delete(self, filter: FilterLike) -> None:
        with without_collection():  # Nothing was written yet.
            self._client.points.delete(self.collection, filter=filter)

    async def _adelete(self, filter: FilterLike) -> None:
        with without_collection():
            await self._loops.client().points.delete(self.collection, filter=filter)

    def clear(self) -> None:
        """Deletes all nodes; the next write makes the collection anew, and its vectors may then have another length."""
        self._client.collections.delete(self.collection, missing_ok=True)
        self._made = False

    async def aclear(self) -> None:
        """`clear`, asynchronous."""
        await self._loops.client().collections.delete(self.collection, missing_ok=True)
        self._made = False

    # ---- reading ----

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes that have one of the ids, if given, and match the filters, if given; of ids alone, in their order."""
        with without_collection():
            if node_ids is not None and filters is None:
                got = self._client.points.get(self.collection, node_ids) if node_ids else Rows[StoredPoint]()
                return _nodes(got)
            return _nodes(self._client.points.scroll(self.collection, filter=_chosen(node_ids, filters)))
        return []

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes`, asynchronous."""
        client = self._loops.client()
        with without_collection():
            if node_ids is not None and filters is None:
                got = await client.points.get(self.collection, node_ids) if node_ids else Rows[StoredPoint]()
                return _nodes(got)
            return _nodes([p async for p in client.points.scroll(self.collection, filter=_chosen(node_ids, filters))])
        return []

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Answers in the mode that the query says."""
        asked = self._ask(query)
        with without_collection():
            return _result(self._client.query(self.collection, **asked))
        return _result(Answer(Rows()))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query`, asynchronous."""
        asked = self._ask(query)
        with without_collection():
            return _result(await self._loops.client().query(self.collection, **asked))
        return _result(Answer(Rows()))

    def _ask(self, query: VectorStoreQuery) -> dict[str, Any]:
        """The query in Cairn's words."""
        asked: dict[str, Any] = {"limit": query.similarity_top_k, "filter": _restricted(query)}
        match query.mode:
            case VectorStoreQueryMode.DEFAULT:
                return {**asked, "source": _nearest(query)}
            case VectorStoreQueryMode.MMR:
                # Its threshold is the weight of relevance, as our lambda is.
                threshold = 0.5 if query.mmr_threshold is None else query.mmr_threshold
                return {**asked, "source": _nearest(query), "ranking": Ranking(mmr=Mmr(threshold, using=_VECTOR))}
            case VectorStoreQueryMode.TEXT_SEARCH:
                return {**asked, "source": Text(_words(query))}
            case VectorStoreQueryMode.SPARSE:
                return {**asked, "limit": query.sparse_top_k or query.similarity_top_k, "source": self._sparse(query)}
            case VectorStoreQueryMode.HYBRID:
                alpha = 0.5 if query.alpha is None else query.alpha
                legs = [
                    Leg(_nearest(query), limit=query.similarity_top_k),
                    Leg(self._sparse(query), limit=query.sparse_top_k or query.similarity_top_k),
                ]
                both = Prefetch(legs, Weighted([alpha, 1 - alpha]))
                return {**asked, "limit": query.hybrid_top_k or query.similarity_top_k, "source": both}
            case other:
                raise _cannot(f"query mode {other.value}", "default, text_search, sparse, hybrid, mmr")

    def _sparse(self, query: VectorStoreQuery) -> Sparse | Text:
        words = _words(query)
        return Sparse(self.sparse_encoder([words])[0], using=_SPARSE) if self.sparse_encoder else Text(words)

    def close(self) -> None:
        """Lets go of the synchronous client's connections."""
        self._client.close()

    async def aclose(self) -> None:
        """Lets go of the connections of the running loop."""
        await self._loops.close()


def _cannot(what: str, can: str) -> InvalidError:
    return InvalidError(f"Cairn has no {what}; it has {can}", code="bad_request")


def _nearest(query: VectorStoreQuery) -> Nearest:
    if query.query_embedding is None:
        raise InvalidError(f"the mode {query.mode.value} needs a query_embedding", code="bad_request")
    return Nearest(query.query_embedding, using=_VECTOR)


def _words(query: VectorStoreQuery) -> str:
    if not query.query_str:
        raise InvalidError(f"the mode {query.mode.value} needs a query_str", code="bad_request")
    return query.query_str


# ---- nodes ----


def _point(node: BaseNode, text: str, sparse: dict[int, float] | None) -> Point:
    kept = node_to_metadata_dict(node, remove_text=True)
    payload = {_TEXT: text, _NODE: kept[_NODE], _KIND: kept[_KIND]}
    # As JSON, for what JSON has no word for is no metadata that could come back.
    payload[_METADATA] = json.loads(json.dumps(node.metadata, default=str))
    # A sparse vector without weights is none.
    weights = {_SPARSE: sparse} if sparse and any(sparse.values()) else None
    vectors = {_VECTOR: node.get_embedding()}
    return Point(node.node_id, vectors=vectors, payload=payload, document=node.ref_doc_id, sparse=weights)


def _node(point: StoredPoint) -> BaseNode:
    payload = point.payload or {}
    return metadata_dict_to_node(payload, text=payload.get(_TEXT))


def _nodes(points: Iterable[StoredPoint]) -> list[BaseNode]:
    return [_node(p) for p in points]


def _result(answer: Answer) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=_nodes(answer.hits), similarities=[hit.score for hit in answer], ids=answer.ids
    )


# ---- filters ----


def _restricted(query: VectorStoreQuery) -> FilterLike | None:
    must: list[FilterLike] = []
    if query.filters is not None and query.filters.filters:
        must.append(_filter(query.filters))
    # Its retrievers say "all" by an empty list.
    if query.doc_ids:
        must.append(has_document(query.doc_ids))
    if query.node_ids:
        must.append(has_id(query.node_ids))
    return Filter(must=must) if must else None


def _chosen(node_ids: list[str] | None, filters: MetadataFilters | None) -> FilterLike | None:
    must: list[FilterLike] = [] if node_ids is None else [has_id(node_ids)]
    if filters is not None and filters.filters:
        must.append(_filter(filters))
    return Filter(must=must) if must else None


def _filter(filters: MetadataFilters) -> Filter:
    parts: list[FilterLike] = [_filter(f) if isinstance(f, MetadataFilters) else _test(f) for f in filters.filters]
    match filters.condition:
        case FilterCondition.OR:
            return Filter(should=parts)
        case FilterCondition.NOT:
            return Filter(must_not=parts)
        case _:
            return Filter(must=parts)


def _test(filter: MetadataFilter) -> FilterLike:
    field, value = Field(f"{_METADATA}.{filter.key}"), filter.value
    match filter.operator:
        case FilterOperator.IS_EMPTY:
            return field.is_empty()
        case FilterOperator.IN | FilterOperator.ANY:
            return field.any(_list(filter))
        case FilterOperator.NIN:
            return ~field.any(_list(filter))
        case FilterOperator.ALL:
            return Filter(must=[field.match(v) for v in _list(filter)])
        case FilterOperator.EQ | FilterOperator.CONTAINS:
            return field.match(_scalar(filter))
        case FilterOperator.NE:
            return ~field.match(_scalar(filter))
        case FilterOperator.GT | FilterOperator.GTE | FilterOperator.LT | FilterOperator.LTE:
            if not isinstance(value, (int, float)):
                raise InvalidError(f"{filter.operator.value} compares numbers, got {value!r}", code="bad_filter")
            return field.range(**{filter.operator.name.lower(): value})
        case other:
            raise _cannot(f"filter operator {other.value}", "==, !=, >, >=, <, <=, in, nin, any, all, contains, is_empty")


def _list(filter: MetadataFilter) -> list[Any]:
    if not isinstance(filter.value, list):
        raise InvalidError(f"{filter.operator.value} takes a list, got {filter.value!r}", code="bad_filter")
    return list(filter.value)


def _scalar(filter: MetadataFilter) -> Any:
    if filter.value is None or isinstance(filter.value, list):
        message = f"{filter.operator.value} takes a string or a number, got {filter.value!r} (is_empty asks for nothing)"
        raise InvalidError(message, code="bad_filter")
    return filter.value

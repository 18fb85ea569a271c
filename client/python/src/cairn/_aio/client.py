"""The client: a connection to one server, and the parts of its API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

from .._wire import methods
from ..answers import Answer, Enriched, all_of, build
from ..errors import InvalidError
from ..filters import FilterLike, whole_filter
from ..requests import Query, RankingLike, SourceLike, TrustLabel, Turn, plain
from ..retry import Retry
from .collections import AsyncCollections, AsyncOperations
from .core import AsyncCore
from .documents import AsyncDocuments
from .points import AsyncPoints
from .snapshots import AsyncSnapshots
from .transport import AsyncGrpcTransport, AsyncRestTransport, AsyncTransport

DEFAULT_URL = "http://127.0.0.1:7700"


class AsyncClient:
    """A connection to a Cairn server. It connects at the first call, and again whenever that is needed.

    One client serves many tasks. It belongs to the event loop that it was first used in.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        transport: Literal["grpc", "rest"] = "grpc",
        timeout: float = 30.0,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """A client of the server at `url` (`http://host:port`, or `https://...` behind a proxy that ends TLS).

        `timeout` is in seconds, over all attempts of a call; every method takes its own. `headers` go with every
        request.
        """
        #: What another client of the same server is made with.
        self._made_with: dict[str, Any] = {
            "url": url, "transport": transport, "timeout": timeout, "retry": retry, "headers": headers,
        }  # fmt: skip
        made = _transport(url, transport, headers or {})
        self._core = AsyncCore(made, timeout, retry or Retry())
        #: What points of one kind have in common.
        self.collections = AsyncCollections(self._core)
        #: Ids, vectors, payloads.
        self.points = AsyncPoints(self._core)
        #: Text in: chunks and embeddings are made by the server.
        self.documents = AsyncDocuments(self._core)
        #: Work that outlives the request that asked for it.
        self.operations = AsyncOperations(self._core)
        #: One moment of the whole database, kept in a store.
        self.snapshots = AsyncSnapshots(self._core)

    async def query(
        self,
        collection: str,
        source: SourceLike,
        *,
        filter: FilterLike | None = None,
        limit: int | None = None,
        offset: int | None = None,
        with_payload: bool | None = None,
        with_vectors: bool | None = None,
        explain: bool | None = None,
        ef: int | None = None,
        nprobe: int | None = None,
        target_recall: float | None = None,
        exact: bool | None = None,
        score_threshold: float | None = None,
        after: str | None = None,
        ranking: RankingLike | None = None,
        allow_partial: bool | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Answers a query from one view of the collection.

        `source` says where hits come from: `Nearest`, `Text`, `Hybrid`, `Sparse`, or a `Prefetch` of several; a string
        means `Hybrid(text=...)`, an array of numbers `Nearest(vector=...)`. With `allow_partial` the points of damaged
        segments may be missing, and the answer's `partial` says so; otherwise that is an error (`segment_damaged`).

        ```python
        >>> found = await client.query("notes", "leader election", limit=1)
        >>> found[0].document
        'raft.md'
        >>> from cairn import Field, Nearest, Text, Prefetch, Rrf
        >>> both = Prefetch([Nearest(text="leader election"), Text("follower")], fuse=Rrf(k=60))
        >>> [hit.id for hit in await client.query("notes", both, filter=Field("topic") == "consensus")]
        ['raft.md#0']

        ```
        """
        query = Query(
            source,
            filter,
            limit,
            offset,
            with_payload,
            with_vectors,
            explain,
            ef,
            nprobe,
            target_recall,
            exact,
            score_threshold,
            after,
            ranking,
            allow_partial,
        )
        request = {"collection": collection, **query.to_json()}
        return build(Answer, await self._core.call(methods.QUERY, request, timeout))

    async def query_batch(
        self, collection: str, queries: Iterable[Query | SourceLike], *, timeout: float | None = None
    ) -> list[Answer]:
        """Up to 1,000 queries on one collection, answered in order. One wrong query refuses the batch.

        ```python
        >>> [answer.ids for answer in await client.query_batch("notes", ["election", "tea"])]
        [['raft.md#0', 'tea.md#0'], ['tea.md#0', 'raft.md#0']]

        ```
        """
        asked = [(q if isinstance(q, Query) else Query(q)).to_json() for q in queries]
        answer = await self._core.call(methods.QUERY_BATCH, {"collection": collection, "queries": asked}, timeout)
        return all_of(Answer, answer["results"])

    async def enrich(
        self,
        collection: str | Sequence[str],
        prompt: str,
        *,
        token_budget: int | None = None,
        tokenizer: str | None = None,
        format: Literal["string", "messages", "anthropic"] | None = None,
        filter: FilterLike | None = None,
        limit: int | None = None,
        max_chunks: int | None = None,
        max_per_document: int | None = None,
        max_per_source: int | None = None,
        score_threshold: float | None = None,
        mode: Literal["hybrid", "dense", "bm25", "sparse"] | None = None,
        after: str | None = None,
        conversation: Sequence[Turn | Mapping[str, str]] | None = None,
        template: str | None = None,
        neighbours: int | None = None,
        ranking: RankingLike | None = None,
        explain: bool | None = None,
        trust: Sequence[TrustLabel] | None = None,
        allow_partial: bool | None = None,
        timeout: float | None = None,
    ) -> Enriched:
        """Finds what matters to a prompt in a collection (or several) and packs it, cited, into a token budget.

        ```python
        >>> enriched = await client.enrich("notes", "How is a leader elected?", token_budget=500)
        >>> enriched.context[0].document, enriched.tokens.context <= 500
        ('raft.md', True)
        >>> "How is a leader elected?" in enriched.prompt
        True

        ```
        """
        several = not isinstance(collection, str)
        request: dict[str, Any] = {"collections": list(collection)} if several else {"collection": collection}
        given = {
            "prompt": prompt,
            "token_budget": token_budget,
            "tokenizer": tokenizer,
            "format": format,
            "filter": whole_filter(filter),
            "limit": limit,
            "max_chunks": max_chunks,
            "max_per_document": max_per_document,
            "max_per_source": max_per_source,
            "score_threshold": score_threshold,
            "mode": mode,
            "after": after,
            "conversation": plain(conversation),
            "template": template,
            "neighbours": neighbours,
            "ranking": plain(ranking),
            "explain": explain,
            "trust": None if trust is None else list(trust),
            "allow_partial": allow_partial,
        }
        request.update({k: v for k, v in given.items() if v is not None})
        return build(Enriched, await self._core.call(methods.ENRICH, request, timeout))

    async def close(self) -> None:
        """Lets go of connections."""
        await self._core.transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _transport(url: str, transport: str, headers: Mapping[str, str]) -> AsyncTransport:
    wrong = InvalidError(f"a server is named as http://host:port, got {url!r}", code="bad_url")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise wrong from None
    # A path or a user would be left out silently.
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or more:
        raise wrong
    secure = parts.scheme == "https"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = port or (443 if secure else 7700)
    if transport == "rest":
        return AsyncRestTransport(f"{parts.scheme}://{host}:{port}", headers=headers)
    if transport == "grpc":
        return AsyncGrpcTransport(f"{host}:{port}", secure=secure, headers=headers)
    raise InvalidError(f"a transport is 'grpc' or 'rest', got {transport!r}", code="bad_request")

"""Documents: text in, chunks and embeddings made by the server."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from .. import _frames
from .._progress import bar
from .._wire import methods
from .._wire.methods import Json
from ..answers import DocumentPage, DocumentView, Put, PutError, PutResult, StoredDocument, Written, all_of, build
from ..errors import CairnError, InvalidError
from ..filters import IdLike, ids_json
from ..requests import Document, DocumentLike, Durability, document_json, durability_json, weight
from .core import AsyncCore

if TYPE_CHECKING:
    import pandas as pd

#: Most documents in one request: the server's bound.
_DOCUMENTS_MAX = 1_000
#: About how many bytes one request has at most: a request that takes long to embed runs into its deadline.
_BATCH_BYTES = 4 << 20


class AsyncDocuments:
    """Text in: chunks and embeddings are made by the server."""

    def __init__(self, core: AsyncCore) -> None:
        self._core = core

    async def put(
        self,
        collection: str,
        documents: DocumentLike | Iterable[DocumentLike],
        *,
        on_near_duplicate: Literal["store", "skip"] | None = None,
        on_error: Literal["raise", "collect"] = "raise",
        batch: int = 64,
        durability: Durability | None = None,
        progress: bool = False,
        total: int | None = None,
        timeout: float | None = None,
    ) -> Put:
        """Cuts, embeds and stores a document, or any number of them in batches. Each replaces its older version
        atomically; what is unchanged is not embedded again.

        `on_error="collect"` leaves out documents that the server refuses, and says so in `errors` of the answer;
        `"raise"` ends at the first one. Whatever ends it, what was stored stays stored, and `partial` of the exception is what
        the batches did that were answered. Of the batch that failed, nothing is stored where the request was found wrong;
        where it went wrong later (a model that refuses a text, time that ran out), the documents before that place may be.
        `timeout` is that of each batch.

        ```python
        >>> from cairn import Document
        >>> put = await client.documents.put("notes", [
        ...     Document("raft.md", "# Raft\\n\\nA follower that hears from no leader becomes a candidate in an election.",
        ...              format="markdown", metadata={"topic": "consensus"}),
        ...     {"id": "tea.md", "text": "Green tea is brewed with water of 70 degrees.", "metadata": {"topic": "kitchen"}},
        ... ])
        >>> [(r.id, r.chunks) for r in put.results]
        [('raft.md', 1), ('tea.md', 1)]

        ```
        """
        if not 1 <= batch <= _DOCUMENTS_MAX:
            raise InvalidError(f"a batch is 1 to {_DOCUMENTS_MAX} documents, got {batch}", code="bad_request")
        many: Iterable[DocumentLike] = [documents] if isinstance(documents, (Document, Mapping)) else documents
        done = Put()
        if total is None and isinstance(many, Sequence):
            total = len(many)
        try:
            with bar(progress, unit="documents", total=total) as shown:
                for some in _batches(many, batch):
                    settings = {"on_near_duplicate": on_near_duplicate} if on_near_duplicate is not None else {}
                    settings.update(durability_json(durability))
                    await self._put_batch(collection, some, settings, on_error == "collect", done, timeout)
                    shown.add(len(some))
        except CairnError as error:
            error.partial = done
            raise
        return done

    async def _put_batch(
        self,
        collection: str,
        some: list[Json],
        settings: Json,
        collect: bool,
        done: Put,
        timeout: float | None,
    ) -> None:
        """What a refused one leaves of a batch is sent again: what was before it under the id of the same request, so that
        documents which it had stored already are answered as they were then, with what they cost and their token."""
        parts = [(some, uuid.uuid4().hex)]
        while parts:
            left, request_id = parts.pop()
            request: Json = {"collection": collection, "documents": left, "request_id": request_id, **settings}
            try:
                answer = await self._core.call(methods.PUT_DOCUMENTS, request, timeout)
            except InvalidError as error:
                wrong = _which(error, len(left))
                if not collect or wrong is None:
                    raise
                done.errors.append(PutError(left[wrong]["id"], error))
                rest = [(left[wrong + 1 :], uuid.uuid4().hex), (left[:wrong], request_id)]
                parts.extend(part for part in rest if part[0])
                continue
            done.results.extend(all_of(PutResult, answer.get("results", ())))
            done.token = answer.get("token") or done.token
            if answer.get("durability") == "async":
                done.durability = "async"

    async def put_frame(
        self,
        collection: str,
        frame: pd.DataFrame,
        *,
        id: str | None = "id",
        text: str = "text",
        title: str | None = None,
        source: str | None = None,
        metadata: Sequence[str] | None = None,
        on_near_duplicate: Literal["store", "skip"] | None = None,
        on_error: Literal["raise", "collect"] = "raise",
        batch: int = 64,
        durability: Durability | None = None,
        progress: bool = False,
        timeout: float | None = None,
    ) -> Put:
        """The same of a pandas frame, one document a row; `metadata` names the columns to keep (default: all others)."""
        documents = _frames.documents_of_frame(frame, id, text, title, source, metadata)
        return await self.put(
            collection,
            documents,
            on_near_duplicate=on_near_duplicate,
            on_error=on_error,
            batch=batch,
            durability=durability,
            progress=progress,
            total=len(frame),
            timeout=timeout,
        )

    async def get(
        self, collection: str, id: IdLike, *, with_chunks: bool = False, timeout: float | None = None
    ) -> DocumentView:
        """One document, and its chunks if asked for.

        ```python
        >>> view = await client.documents.get("notes", "raft.md", with_chunks=True)
        >>> view.document.title, len(view.chunks)
        ('Raft', 1)

        ```
        """
        # Not `id` of a path: documents are named by a query parameter, because their ids are any text.
        request: Json = {"collection": collection, "id": str(id), "with_chunks": with_chunks or None}
        return build(DocumentView, await self._core.call(methods.GET_DOCUMENT, request, timeout))

    async def delete(
        self,
        collection: str,
        ids: IdLike | Iterable[IdLike],
        *,
        durability: Durability | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Written:
        """Deletes documents with their chunks; missing ids are ignored."""
        request = {
            "collection": collection,
            "ids": ids_json(ids),
            "request_id": request_id or uuid.uuid4().hex,
            **durability_json(durability),
        }
        return build(Written, await self._core.call(methods.DELETE_DOCUMENTS, request, timeout))

    async def list_page(
        self,
        collection: str,
        *,
        after_id: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> DocumentPage:
        """One page of documents, in id order."""
        request: Json = {"collection": collection, "after_id": after_id, "limit": limit}
        return build(DocumentPage, await self._core.call(methods.LIST_DOCUMENTS, request, timeout))

    async def list(
        self, collection: str, *, page: int = 1_000, timeout: float | None = None
    ) -> AsyncIterator[StoredDocument]:
        """All documents in id order, page by page."""
        after: str | None = None
        while True:
            got = await self.list_page(collection, after_id=after, limit=page, timeout=timeout)
            for document in got.documents:
                yield document
            after = got.next
            if after is None:
                return


def _which(error: InvalidError, of: int) -> int | None:
    """Which document of a batch an error is about."""
    found = re.match(r"/documents/(\d+)(/|$)", error.pointer or "")
    place = int(found[1]) if found else None
    return place if place is not None and place < of else None


def _batches(documents: Iterable[DocumentLike], most: int) -> Iterable[list[Json]]:
    some: list[Json] = []
    size = 0
    for document in documents:
        json = document_json(document)
        bytes_ = weight(json)
        if some and (len(some) == most or size + bytes_ > _BATCH_BYTES):
            yield some
            some, size = [], 0
        some.append(json)
        size += bytes_
    if some:
        yield some

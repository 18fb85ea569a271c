"""Documents: text in, chunks and embeddings made by the server."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .. import _frames
from .._progress import bar
from .._wire import methods
from .._wire.methods import Json
from ..answers import DocumentPage, DocumentView, Put, PutError, PutResult, StoredDocument, Written, all_of, build
from ..errors import CairnError, DeadlineError, InvalidError, ServerError
from ..filters import IdLike, ids_json
from ..requests import Document, DocumentLike, Durability, document_json, durability_json, weight
from .core import Core

if TYPE_CHECKING:
    import pandas as pd

#: Most documents in one request: the server's bound.
_DOCUMENTS_MAX = 1_000
#: About how many bytes one request has at most: a request that takes long to embed runs into its deadline.
_BATCH_BYTES = 4 << 20
#: What a server, or a proxy before it, says of a request that is too large as a whole.
_TOO_LARGE = ("body_too_large", "request_too_large", "http_413")
#: Documents in a row that take too long, or that the server fails at, each alone, before the rest is not tried: then it is
#: not the documents.
_LATE_IN_A_ROW, _FAILED_IN_A_ROW = 2, 10


class Documents:
    """Text in: chunks and embeddings are made by the server."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def put(
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

        `on_error="collect"` leaves out documents that are refused, that the server fails at, or that alone take longer than
        `timeout`, and says so in `errors` of the answer; `"raise"` ends at the first one. What is too large or takes too long
        together is then sent in halves; what the server had stored of it by then may be told as `unchanged`. It ends all the
        same where it is not the documents: nobody answers, or many in a row fail.

        Whatever ends it, what was stored stays stored, and `partial` of the exception is what the batches did that were
        answered. Of the batch that failed, nothing is stored where the request was found wrong; where it went wrong later (a
        model that refuses a text, time that ran out), the documents before that place may be. `timeout` is that of each
        request: with `"collect"`, a batch of 64 that a server never answers takes up to eight of them, because it is halved
        down to two documents that take too long alone.

        ```python
        >>> from cairn import Document
        >>> put = client.documents.put("notes", [
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
        collect = on_error == "collect"
        done, row = Put(), _Row() if collect else None
        if total is None and isinstance(many, Sequence):
            total = len(many)
        try:
            with bar(progress, unit="documents", total=total) as shown:

                def refuse(id: str, error: InvalidError) -> None:
                    done.errors.append(PutError(id, error))
                    shown.add(1)

                for some in _batches(many, batch, refuse if collect else None):
                    settings = {"on_near_duplicate": on_near_duplicate} if on_near_duplicate is not None else {}
                    settings.update(durability_json(durability))
                    self._put_batch(collection, some, settings, row, done, timeout)
                    shown.add(len(some))
        except CairnError as error:
            error.partial = done
            raise
        return done

    def _put_batch(
        self,
        collection: str,
        some: list[Json],
        settings: Json,
        row: _Row | None,
        done: Put,
        timeout: float | None,
    ) -> None:
        """What a refused one leaves of a batch is sent again: what was before it under the id of the same request, so that
        documents which it had stored already are answered as they were then, with what they cost and their token. Without a
        `row` the first error ends it."""
        parts = [(some, uuid.uuid4().hex)]
        while parts:
            left, request_id = parts.pop()
            request: Json = {"collection": collection, "documents": left, "request_id": request_id, **settings}
            try:
                answer = self._core.call(methods.PUT_DOCUMENTS, request, timeout)
            except CairnError as error:
                cut = None if row is None else _cut(error, len(left))
                if row is None or cut is None:
                    raise
                first, second = cut
                if second > first:
                    row.add(error)
                    done.errors.append(PutError(left[first]["id"], error))
                rest = [(left[second:], uuid.uuid4().hex), (left[:first], request_id)]
                parts.extend(part for part in rest if part[0])
                continue
            if row is not None:
                row.end()
            done.results.extend(all_of(PutResult, answer.get("results", ())))
            done.token = answer.get("token") or done.token
            if answer.get("durability") == "async":
                done.durability = "async"

    def put_frame(
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
        return self.put(
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

    def get(
        self, collection: str, id: IdLike, *, with_chunks: bool = False, timeout: float | None = None
    ) -> DocumentView:
        """One document, and its chunks if asked for.

        ```python
        >>> view = client.documents.get("notes", "raft.md", with_chunks=True)
        >>> view.document.title, len(view.chunks)
        ('Raft', 1)

        ```
        """
        # Not `id` of a path: documents are named by a query parameter, because their ids are any text.
        request: Json = {"collection": collection, "id": str(id), "with_chunks": with_chunks or None}
        return build(DocumentView, self._core.call(methods.GET_DOCUMENT, request, timeout))

    def delete(
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
        return build(Written, self._core.call(methods.DELETE_DOCUMENTS, request, timeout))

    def list_page(
        self,
        collection: str,
        *,
        after_id: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> DocumentPage:
        """One page of documents, in id order."""
        request: Json = {"collection": collection, "after_id": after_id, "limit": limit}
        return build(DocumentPage, self._core.call(methods.LIST_DOCUMENTS, request, timeout))

    def list(
        self, collection: str, *, page: int = 1_000, timeout: float | None = None
    ) -> Iterator[StoredDocument]:
        """All documents in id order, page by page."""
        after: str | None = None
        while True:
            got = self.list_page(collection, after_id=after, limit=page, timeout=timeout)
            for document in got.documents:
                yield document
            after = got.next
            if after is None:
                return


@dataclass(slots=True)
class _Row:
    """Documents in a row that failed for what may be no fault of theirs."""

    late: int = 0
    failed: int = 0

    def add(self, error: CairnError) -> None:
        """One more; raises if it was one too many. One that is refused is answered for, and ends the row."""
        if isinstance(error, InvalidError):
            self.end()
        self.late += isinstance(error, DeadlineError)
        self.failed += isinstance(error, ServerError)
        if self.late >= _LATE_IN_A_ROW or self.failed >= _FAILED_IN_A_ROW:
            raise error

    def end(self) -> None:
        """The server does its work."""
        self.late = self.failed = 0


def _cut(error: CairnError, of: int) -> tuple[int, int] | None:
    """What to send again of a batch that failed: the documents before the first place, and those from the second on. The
    one between them is what the error is about. None: none of it."""
    if isinstance(error, DeadlineError) or (isinstance(error, InvalidError) and error.code in _TOO_LARGE):
        return (of // 2, of // 2) if of > 1 else (0, 1)
    if isinstance(error, (InvalidError, ServerError)):
        found = re.match(r"/documents/(\d+)(/|$)", error.pointer or "")
        place = int(found[1]) if found else of
        return (place, place + 1) if place < of else None
    return None


def _batches(
    documents: Iterable[DocumentLike], most: int, refuse: Callable[[str, InvalidError], None] | None = None
) -> Iterable[list[Json]]:
    """Documents as they are sent. `refuse`, if there is one, is told of those that cannot be."""
    some: list[Json] = []
    size = 0
    for document in documents:
        try:
            json = document_json(document)
        except InvalidError as error:
            if refuse is None:
                raise
            refuse(str(document.get("id", "") if isinstance(document, Mapping) else document.id), error)
            continue
        bytes_ = weight(json)
        if some and (len(some) == most or size + bytes_ > _BATCH_BYTES):
            yield some
            some, size = [], 0
        some.append(json)
        size += bytes_
    if some:
        yield some

"""Points: ids, vectors, payloads."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from .. import _frames
from .._progress import bar
from .._wire import methods
from .._wire.methods import Json
from ..answers import Page, Partial, Rows, StoredPoint, Written, build
from ..errors import CairnError, InvalidError
from ..filters import FilterLike, IdLike, ids_json, whole_filter
from ..requests import Durability, Embedder, PointLike, durability_json, embedder_json, point_json, weight, with_json
from .core import Core

if TYPE_CHECKING:
    import pandas as pd

#: Most points in one write: the server's bound.
_POINTS_MAX = 10_000
#: About how many bytes one message of a stream has at most: far below the server's bound of 32 MiB, since a number of four
#: bytes takes up to twenty in JSON.
_BATCH_BYTES = 4 << 20
#: Messages after which a stream is closed and acknowledged. What is not acknowledged is kept to be sent again.
_WINDOW = 8
#: The models that made vectors, by vector name; a string is a model's name.
Embedders: TypeAlias = Mapping[str, Embedder | str]


class Points:
    """Ids, vectors, payloads."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def upsert(
        self,
        collection: str,
        points: PointLike | Sequence[PointLike],
        *,
        durability: Durability | None = None,
        embedders: Embedders | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Written:
        """Inserts points or replaces them whole, at most 10,000: all or none, durable when answered.

        `embedders` says by vector name which models made the vectors: refused if the collection records others.

        ```python
        >>> from cairn import Point
        >>> wrote = client.points.upsert("vectors", [
        ...     Point("a", [1.0, 0.0, 0.0], payload={"lang": "en"}),
        ...     {"id": "b", "vector": [0.0, 1.0, 0.0], "payload": {"lang": "de"}},
        ... ])
        >>> wrote.changed
        2

        ```
        """
        many = [points] if isinstance(points, Mapping) or not isinstance(points, Sequence) else points
        request = {
            "collection": collection,
            "points": [point_json(p) for p in many],
            "request_id": request_id or uuid.uuid4().hex,
            **durability_json(durability),
            **_stated(embedders),
        }
        return build(Written, self._core.call(methods.UPSERT, request, timeout))

    def upsert_many(
        self,
        collection: str,
        points: Iterable[PointLike],
        *,
        batch: int = 1_000,
        durability: Durability | None = None,
        progress: bool = False,
        total: int | None = None,
        embedders: Embedders | None = None,
        timeout: float | None = None,
    ) -> Written:
        """Inserts or replaces any number of points, in batches that are one atomic write each, in order.

        gRPC streams them; memory stays bounded. What the server refuses for now is sent again. An error for good ends
        it: the batches before the wrong one are written, and `partial` of the exception is what those of them did that were
        answered. `timeout` is that of each stream of a few batches.
        """
        if not 1 <= batch <= _POINTS_MAX:
            raise InvalidError(f"a batch is 1 to {_POINTS_MAX} points, got {batch}", code="bad_request")
        done = Written()
        window: list[Json] = []
        try:
            with bar(progress, unit="points", total=total if total is not None else _length(points)) as shown:
                for some in _batches(points, batch):
                    window.append(
                        {
                            "collection": collection,
                            "points": some,
                            "request_id": uuid.uuid4().hex,
                            **durability_json(durability),
                            **_stated(embedders),
                        }
                    )
                    if len(window) == _WINDOW:
                        self._send(window, done, timeout)
                        shown.add(sum(len(w["points"]) for w in window))
                        window = []
                if window:
                    self._send(window, done, timeout)
                    shown.add(sum(len(w["points"]) for w in window))
        except CairnError as error:
            error.partial = done
            raise
        return done

    def _send(self, window: list[Json], done: Written, timeout: float | None) -> None:
        answer = build(Written, self._core.send_all(methods.UPSERT_STREAM, window, timeout))
        done.token, done.changed = answer.token or done.token, done.changed + answer.changed
        if answer.durability == "async":
            done.durability = "async"

    def upsert_arrays(
        self,
        collection: str,
        ids: Sequence[IdLike] | npt.NDArray[Any],
        vectors: npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]],
        *,
        payloads: Sequence[Mapping[str, Any]] | None = None,
        batch: int = 1_000,
        durability: Durability | None = None,
        progress: bool = False,
        embedders: Embedders | None = None,
        timeout: float | None = None,
    ) -> Written:
        """The same of NumPy arrays: `vectors` has one row a point, or is a dict of such arrays by name.

        ```python
        >>> import numpy as np
        >>> (client.points.upsert_arrays("vectors", ["a", "b", "c"], np.eye(3))).changed
        3

        ```
        """
        points = _frames.points_of_arrays(ids, vectors, payloads)
        return self.upsert_many(
            collection,
            points,
            batch=batch,
            durability=durability,
            progress=progress,
            total=len(ids),
            embedders=embedders,
            timeout=timeout,
        )

    def upsert_frame(
        self,
        collection: str,
        frame: pd.DataFrame,
        *,
        id: str | None = "id",
        vector: str | Mapping[str, str] | None = "vector",
        document: str | None = None,
        payload: Sequence[str] | None = None,
        batch: int = 1_000,
        durability: Durability | None = None,
        progress: bool = False,
        embedders: Embedders | None = None,
        timeout: float | None = None,
    ) -> Written:
        """The same of a pandas frame, one point a row. `id` is a column (None: the index), `vector` a column of arrays,
        or columns by vector name; `payload` names the columns to keep (default: all others). Missing values are left
        out of payloads.

        ```python
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"id": ["x", "y"], "vector": [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], "year": [2024, 2025]})
        >>> (client.points.upsert_frame("vectors", frame)).changed
        2
        >>> (client.query("vectors", [0.0, 0.0, 1.0], limit=1)).to_pandas()[["id", "year"]].values.tolist()
        [['y', 2025]]

        ```
        """
        points = _frames.points_of_frame(frame, id, vector, document, payload)
        return self.upsert_many(
            collection,
            points,
            batch=batch,
            durability=durability,
            progress=progress,
            total=len(frame),
            embedders=embedders,
            timeout=timeout,
        )

    def get(
        self,
        collection: str,
        ids: IdLike | Iterable[IdLike],
        *,
        with_payload: bool | None = None,
        with_vectors: bool | None = None,
        timeout: float | None = None,
    ) -> Rows[StoredPoint]:
        """Points by id, in the order asked; missing ones are left out."""
        request = {"collection": collection, "ids": ids_json(ids), **with_json(with_payload, with_vectors)}
        answer = self._core.call(methods.GET_POINTS, request, timeout)
        return Rows(build(StoredPoint, p) for p in answer.get("points", ()))

    def get_partial(
        self,
        collection: str,
        ids: IdLike | Iterable[IdLike],
        *,
        with_payload: bool | None = None,
        with_vectors: bool | None = None,
        timeout: float | None = None,
    ) -> tuple[Rows[StoredPoint], Partial | None]:
        """The same without the points of damaged segments, which `get` refuses (`segment_damaged`); the second says what
        is missing, if anything is."""
        with_ = with_json(with_payload, with_vectors)
        request = {"collection": collection, "ids": ids_json(ids), "allow_partial": True, **with_}
        answer = self._core.call(methods.GET_POINTS, request, timeout)
        return Rows(build(StoredPoint, p) for p in answer.get("points", ())), _partial(answer)

    def delete(
        self,
        collection: str,
        ids: IdLike | Iterable[IdLike] | None = None,
        *,
        filter: FilterLike | None = None,
        durability: Durability | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Written:
        """Deletes points by id or by filter. Missing ids are ignored.

        ```python
        >>> from cairn import Field
        >>> (client.points.delete("vectors", filter=Field("year") >= 2025)).changed
        1

        ```
        """
        if (ids is None) == (filter is None):
            raise InvalidError("give ids or filter", code="bad_selector", pointer="/ids")
        selector = {"filter": whole_filter(filter)} if ids is None else {"ids": ids_json(ids)}
        request = {
            "collection": collection,
            **selector,
            "request_id": request_id or uuid.uuid4().hex,
            **durability_json(durability),
        }
        return build(Written, self._core.call(methods.DELETE_POINTS, request, timeout))

    def scroll_page(
        self,
        collection: str,
        *,
        filter: FilterLike | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        with_payload: bool | None = None,
        with_vectors: bool | None = None,
        after: str | None = None,
        allow_partial: bool | None = None,
        timeout: float | None = None,
    ) -> Page:
        """One page of points, in the order they were inserted. With `allow_partial` those of damaged segments may be
        missing, and the page's `partial` says so; otherwise that is an error (`segment_damaged`)."""
        given = {
            "filter": whole_filter(filter),
            "limit": limit,
            "cursor": cursor,
            "after": after,
            "allow_partial": allow_partial,
        }
        request: Json = {"collection": collection, **{k: v for k, v in given.items() if v is not None}}
        request.update(with_json(with_payload, with_vectors))
        return build(Page, self._core.call(methods.SCROLL, request, timeout))

    def scroll(
        self,
        collection: str,
        *,
        filter: FilterLike | None = None,
        page: int = 1_000,
        with_payload: bool | None = None,
        with_vectors: bool | None = None,
        after: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[StoredPoint]:
        """All points that match, in the order they were inserted, page by page."""
        cursor: str | None = None
        while True:
            got = self.scroll_page(
                collection,
                filter=filter,
                limit=page,
                cursor=cursor,
                with_payload=with_payload,
                with_vectors=with_vectors,
                after=after,
                timeout=timeout,
            )
            for point in got.points:
                yield point
            cursor = got.cursor
            if cursor is None:
                return

    def to_frame(
        self,
        collection: str,
        *,
        filter: FilterLike | None = None,
        with_vectors: bool | None = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """All points that match as a pandas frame; see `Rows.to_pandas`."""
        points = self.scroll(collection, filter=filter, with_vectors=with_vectors, timeout=timeout)
        return Rows([p for p in points]).to_pandas()

    def count(self, collection: str, *, filter: FilterLike | None = None, timeout: float | None = None) -> int:
        """Live points that match, exactly."""
        request: Json = {"collection": collection}
        if filter is not None:
            request["filter"] = whole_filter(filter)
        return int((self._core.call(methods.COUNT, request, timeout)).get("count", 0))

    def count_partial(
        self, collection: str, *, filter: FilterLike | None = None, timeout: float | None = None
    ) -> tuple[int, Partial | None]:
        """The same without the points of damaged segments, which `count` refuses (`segment_damaged`); the second says
        what is missing, if anything is."""
        request: Json = {"collection": collection, "allow_partial": True}
        if filter is not None:
            request["filter"] = whole_filter(filter)
        answer = self._core.call(methods.COUNT, request, timeout)
        return int(answer.get("count", 0)), _partial(answer)

    def set_payload(
        self,
        collection: str,
        ids: IdLike | Iterable[IdLike],
        set: Mapping[str, Any] | None = None,
        *,
        unset: Sequence[str] | None = None,
        replace: bool = False,
        durability: Durability | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Written:
        """Changes payloads of existing points, by top-level keys; vectors stay. `replace` makes `set` the whole payload.

        ```python
        >>> (client.points.set_payload("vectors", ["a"], {"lang": "fr"}, unset=["draft"])).changed
        1

        ```
        """
        given = {"set": set, "unset": None if unset is None else list(unset), "replace": replace or None}
        request = {
            "collection": collection,
            "ids": ids_json(ids),
            **{k: v for k, v in given.items() if v is not None},
            "request_id": request_id or uuid.uuid4().hex,
            **durability_json(durability),
        }
        return build(Written, self._core.call(methods.SET_PAYLOAD, request, timeout))


def _stated(embedders: Embedders | None) -> Json:
    return {"embedders": {name: embedder_json(e) for name, e in embedders.items()}} if embedders else {}


def _partial(answer: Json) -> Partial | None:
    return None if answer.get("partial") is None else build(Partial, answer["partial"])


def _length(points: Any) -> int | None:
    return len(points) if hasattr(points, "__len__") else None


def _batches(points: Iterable[PointLike], most: int) -> Iterable[list[Json]]:
    some: list[Json] = []
    size = 0
    for point in points:
        json = point_json(point)
        bytes_ = weight(json)
        if some and (len(some) == most or size + bytes_ > _BATCH_BYTES):
            yield some
            some, size = [], 0
        some.append(json)
        size += bytes_
    if some:
        yield some

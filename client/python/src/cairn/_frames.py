"""NumPy arrays and pandas frames as points and documents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidError
from .requests import Document, Point

if TYPE_CHECKING:
    import pandas as pd


def points_of_arrays(
    ids: Sequence[str | int] | npt.NDArray[Any],
    vectors: npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]],
    payloads: Sequence[Mapping[str, Any]] | None,
) -> Iterator[Point]:
    """Points of columns; lengths are compared first."""
    only = None if isinstance(vectors, Mapping) else np.asarray(vectors, np.float32)
    named = {n: np.asarray(v, np.float32) for n, v in vectors.items()} if isinstance(vectors, Mapping) else {}
    for name, matrix in [("vectors", only), *named.items()]:
        if matrix is not None and (matrix.ndim != 2 or len(matrix) != len(ids)):
            message = f"{name} has shape {matrix.shape}, which is not one row for each of {len(ids)} ids"
            raise InvalidError(message, code="bad_request")
    if payloads is not None and len(payloads) != len(ids):
        raise InvalidError(f"there are {len(payloads)} payloads for {len(ids)} ids", code="bad_request")

    def points() -> Iterator[Point]:
        for i, id in enumerate(ids):
            payload = None if payloads is None else payloads[i]
            if only is not None:
                yield Point(_id(id), only[i], payload=payload)
            else:
                yield Point(_id(id), vectors={n: m[i] for n, m in named.items()}, payload=payload)

    return points()


def points_of_frame(
    frame: pd.DataFrame,
    id: str | None,
    vector: str | Mapping[str, str] | None,
    document: str | None,
    payload: Sequence[str] | None,
) -> Iterator[Point]:
    """Points of rows."""
    named = dict(vector) if isinstance(vector, Mapping) else {}
    only = vector if isinstance(vector, str) else None
    special = [c for c in (id, only, document, *named.values()) if c is not None]
    columns = _columns(frame, special, payload)

    def points() -> Iterator[Point]:
        ids = frame.index if id is None else frame[id]
        for i, one in enumerate(ids):
            at = {c: frame[c].iloc[i] for c in special}
            parent = None if document is None or is_missing(at[document]) else at[document]
            yield Point(
                _id(one),
                None if only is None or is_missing(at[only]) else at[only],
                vectors={n: at[c] for n, c in named.items() if not is_missing(at[c])} or None,
                payload=_row(frame, columns, i),
                document=None if parent is None else _id(parent),
            )

    return points()


def documents_of_frame(
    frame: pd.DataFrame, id: str | None, text: str, title: str | None, source: str | None, metadata: Sequence[str] | None
) -> Iterator[Document]:
    """Documents of rows."""
    special = [c for c in (id, text, title, source) if c is not None]
    columns = _columns(frame, special, metadata)

    def documents() -> Iterator[Document]:
        ids = frame.index if id is None else frame[id]
        for i, one in enumerate(ids):
            at = {c: frame[c].iloc[i] for c in special}
            said = {n: str(at[c]) for n, c in (("title", title), ("source", source)) if c and not is_missing(at[c])}
            yield Document(str(_id(one)), str(at[text]), metadata=_row(frame, columns, i), **said)  # type: ignore[arg-type]

    return documents()


def _columns(frame: pd.DataFrame, special: Sequence[str], others: Sequence[str] | None) -> list[str]:
    chosen = [c for c in frame.columns if c not in special] if others is None else list(others)
    missing = [c for c in (*special, *chosen) if c not in frame.columns]
    if missing:
        have = ", ".join(map(str, frame.columns))
        raise InvalidError(f"the frame has no column {missing[0]!r}; it has {have}", code="bad_request")
    return chosen


def _row(frame: pd.DataFrame, columns: Sequence[str], i: int) -> dict[str, Any]:
    values = ((str(c), frame[c].iloc[i]) for c in columns)
    return {c: v.item() if isinstance(v, np.generic) else v for c, v in values if not is_missing(v)}


def is_missing(value: Any) -> bool:
    """None, NaN, NaT, pandas' NA: what a frame puts where nothing is."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and math.isnan(value)


def _id(value: Any) -> str | int:
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[no-any-return]

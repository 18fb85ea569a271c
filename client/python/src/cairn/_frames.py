"""NumPy arrays and pandas frames as points and documents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidError
from .filters import IdLike
from .requests import Document, Point, floats

if TYPE_CHECKING:
    import pandas as pd


def points_of_arrays(
    ids: Sequence[IdLike] | npt.NDArray[Any],
    vectors: npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]],
    payloads: Sequence[Mapping[str, Any]] | None,
) -> Iterator[Point]:
    """Points of columns; lengths are compared first."""
    only = None if isinstance(vectors, Mapping) else floats(vectors)
    named = {n: floats(v) for n, v in vectors.items()} if isinstance(vectors, Mapping) else {}
    for name, matrix in [("vectors", only), *named.items()]:
        if matrix is not None and (matrix.ndim != 2 or len(matrix) != len(ids)):
            message = f"{name} has shape {matrix.shape}, which is not one row for each of {len(ids)} ids"
            raise InvalidError(message, code="bad_request")
    if payloads is not None and len(payloads) != len(ids):
        raise InvalidError(f"there are {len(payloads)} payloads for {len(ids)} ids", code="bad_request")
    names = _ids(ids)

    def points() -> Iterator[Point]:
        for i, id in enumerate(names):
            payload = None if payloads is None else payloads[i]
            if only is not None:
                yield Point(id, only[i], payload=payload)
            else:
                yield Point(id, vectors={n: m[i] for n, m in named.items()}, payload=payload)

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
    ids = _ids(frame.index if id is None else columns[id])
    kept = _kept(frame, special, payload)

    def points() -> Iterator[Point]:
        for i, one in enumerate(ids):
            vector = None if only is None else columns[only][i]
            parent = None if document is None else columns[document][i]
            yield Point(
                one,
                None if is_missing(vector) else vector,
                vectors={n: columns[c][i] for n, c in named.items() if not is_missing(columns[c][i])} or None,
                payload=_row(columns, kept, i),
                document=None if is_missing(parent) else _id(parent),
            )

    return points()


def documents_of_frame(
    frame: pd.DataFrame, id: str | None, text: str, title: str | None, source: str | None, metadata: Sequence[str] | None
) -> Iterator[Document]:
    """Documents of rows."""
    special = [c for c in (id, text, title, source) if c is not None]
    columns = _columns(frame, special, metadata)
    ids = _ids(frame.index if id is None else columns[id])
    kept = _kept(frame, special, metadata)

    def documents() -> Iterator[Document]:
        for i, one in enumerate(ids):
            optional = {n: columns[c][i] for n, c in (("title", title), ("source", source)) if c is not None}
            said = {n: str(v) for n, v in optional.items() if not is_missing(v)}
            # What is missing is empty, not "nan": the server refuses it, and `on_error` says what follows.
            words = "" if is_missing(columns[text][i]) else str(columns[text][i])
            yield Document(str(one), words, metadata=_row(columns, kept, i), **said)  # type: ignore[arg-type]

    return documents()


def _kept(frame: pd.DataFrame, special: Sequence[str], others: Sequence[str] | None) -> list[str]:
    """The columns that become payload or metadata."""
    return [c for c in frame.columns if c not in special] if others is None else list(others)


def _columns(frame: pd.DataFrame, special: Sequence[str], others: Sequence[str] | None) -> dict[str, list[Any]]:
    """The columns that are read, as lists: looking into a frame value by value takes a hundred times longer."""
    wanted = list(dict.fromkeys([*special, *_kept(frame, special, others)]))
    for name in wanted:
        count = int((frame.columns == name).sum())
        if count != 1:
            have = ", ".join(map(str, frame.columns))
            what = f"no column {name!r}" if count == 0 else f"{count} columns {name!r}"
            raise InvalidError(f"the frame has {what}; it has {have}", code="bad_request")
    return {name: frame[name].tolist() for name in wanted}


def _row(columns: Mapping[str, list[Any]], names: Sequence[str], i: int) -> dict[str, Any]:
    values = ((str(c), columns[c][i]) for c in names)
    return {c: v.item() if isinstance(v, np.generic) else v for c, v in values if not is_missing(v)}


def is_missing(value: Any) -> bool:
    """None, NaN, NaT, pandas' NA: what a frame puts where nothing is."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and math.isnan(value)


def _ids(values: Sequence[Any] | npt.NDArray[Any] | pd.Index) -> list[str | int]:
    """Ids of rows. One that is missing is refused: every "nan" would replace the one before."""
    ids = list(values)
    missing = next((i for i, value in enumerate(ids) if is_missing(value)), None)
    if missing is not None:
        raise InvalidError(f"row {missing} has no id", code="bad_request")
    return [_id(value) for value in ids]


def _id(value: Any) -> str | int:
    value = value.item() if isinstance(value, np.generic) else value
    # pandas makes floats of a column of integers in which one is missing.
    return int(value) if isinstance(value, float) and value.is_integer() else value

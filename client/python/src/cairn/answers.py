"""What is answered, as plain typed values: the same from both transports.

`build` makes them of the JSON that REST answers with (the gRPC transport makes that JSON of its messages), led by the
types written here. Keys that a class does not know are skipped: a newer server may say more.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt

from .errors import ServerError

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
Vector = npt.NDArray[np.float32]


# ---- writes ----


@dataclass(slots=True)
class Written:
    """What a write answers."""

    #: Opaque place of this write. A read that gives it as `after` sees at least this write.
    token: str | None = None
    #: Points inserted, replaced or deleted.
    changed: int = 0
    #: How safe it is now, of several the least safe: `sync` survives a loss of power, `async` is on disk within 100 ms.
    durability: str = "sync"
    #: The request had been done before (an attempt whose answer was lost); this is what was answered then.
    replayed: bool = False


# ---- collections ----


@dataclass(slots=True)
class Collection:
    """A collection and its state."""

    name: str
    #: The definition, with all defaults, as REST says it.
    schema: dict[str, Any]
    #: Live points.
    points: int = 0
    documents: int = 0
    #: Live points in sealed, indexed segments.
    indexed_points: int = 0
    #: Sealed segments.
    segments: int = 0
    #: Dead rows that no merge has dropped yet.
    dead_rows: int = 0
    #: Bytes of sealed files.
    disk_bytes: int = 0
    #: Bytes of growing segments in memory.
    growing_bytes: int = 0
    #: A seal or merge is due or running.
    optimizing: bool = False
    #: What the caller should know, e.g. that the server does not have the embedder of a vector.
    notes: list[str] = field(default_factory=list)
    #: Sealed segments that are damaged, as far as it is known. Their points are counted above.
    damaged: list[DamagedSegment] = field(default_factory=list)
    #: How much its searches over dense vectors found, of those that were asked again, exactly. None until one was since the
    #: server started.
    recall_estimate: RecallEstimate | None = None


@dataclass(slots=True)
class RecallEstimate:
    """How much searches found."""

    #: The share of the exact hits that was found, 0 to 1: the mean over the last few hundred questions.
    recall: float = 0.0
    #: Questions that were asked again since the server started.
    questions: int = 0


@dataclass(slots=True)
class DamagedSegment:
    """A segment whose file is damaged or missing."""

    collection: str
    shard: int = 0
    segment: int = 0
    #: Live points in it.
    points: int = 0
    #: What is wrong.
    reason: str = ""


@dataclass(slots=True)
class Partial:
    """What an answer was given without, because it is damaged and the request allowed that."""

    #: Live points that were not looked at.
    points: int = 0
    segments: list[DamagedSegment] = field(default_factory=list)


@dataclass(slots=True)
class Operation:
    """Work that outlives the request that asked for it."""

    id: str
    kind: str
    collection: str
    state: Literal["running", "done", "failed", "cancelled"]
    #: 0 to 1.
    progress: float = 0.0
    #: What it is at, or what came of it, for people.
    message: str = ""
    started_at_ms: int = 0
    ended_at_ms: int | None = None
    #: If it failed: the stable code and the message of the error.
    error_code: str | None = None
    error: str | None = None
    #: Of an operation that has to do with snapshots: which.
    snapshot: str | None = None

    @property
    def ended(self) -> bool:
        """It is done, failed or cancelled."""
        return self.state != "running"


# ---- snapshots ----


@dataclass(slots=True)
class SnapshotCollection:
    """A collection of a snapshot."""

    collection: str
    points: int = 0
    documents: int = 0


@dataclass(slots=True)
class Restorable:
    """From where to where a snapshot can be restored: each a write's token, and milliseconds since the Unix epoch."""

    from_token: str
    from_ms: int = 0
    to_token: str = ""
    to_ms: int = 0


@dataclass(slots=True)
class Snapshot:
    """One moment of the whole database, kept in a store."""

    snapshot: str
    #: When the moment was that it holds, in milliseconds since the Unix epoch.
    created_at_ms: int = 0
    #: The last write in it.
    token: str = ""
    #: Version of Cairn that wrote it.
    cairn: str = ""
    files: int = 0
    #: Bytes of its files. What several snapshots share is stored once.
    bytes: int = 0
    collections_total: int = 0
    #: What is in it, by name; left out of a list.
    collections: list[SnapshotCollection] = field(default_factory=list)
    #: From where to where it can be restored: its own moment, and how far the log that is there follows it.
    restorable: Restorable | None = None
    #: Why it cannot be read, if it cannot; then only its name is known.
    damaged: str | None = None


# ---- points ----


@dataclass(slots=True)
class SparseWeights:
    """A stored sparse vector."""

    indices: npt.NDArray[np.uint32]
    values: Vector

    def to_dict(self) -> dict[int, float]:
        """Weights by term number."""
        return dict(zip(self.indices.tolist(), self.values.tolist(), strict=True))


@dataclass(slots=True)
class StoredPoint:
    """A point as it is stored and given back."""

    id: str
    #: None if it was not asked for.
    payload: dict[str, Any] | None = None
    #: Exactly the vectors that were written; empty if they were not asked for.
    vectors: dict[str, Vector] = field(default_factory=dict)
    sparse: dict[str, SparseWeights] = field(default_factory=dict)
    #: The document this point is a chunk of.
    document: str | None = None
    #: Opaque token of the write that made this version.
    version: str = ""

    @property
    def vector(self) -> Vector | None:
        """The only vector there is; None if there is none or there are several."""
        return next(iter(self.vectors.values())) if len(self.vectors) == 1 else None


@dataclass(slots=True)
class LegScore:
    """What one leg thought of a hit."""

    leg: str
    #: Cosine, inner product, distance, BM25, or what a reranker said.
    raw: float
    #: Place in that leg, from 1.
    rank: int


@dataclass(slots=True)
class Hit(StoredPoint):
    """A point that was found."""

    #: 0..1, higher is better.
    score: float = 0.0
    #: What each leg that found the point thought of it.
    legs: list[LegScore] = field(default_factory=list)


PointT = TypeVar("PointT", bound=StoredPoint)


class Rows(list[PointT]):
    """Points, and the same as columns."""

    __slots__ = ()

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        return [p.id for p in self]

    def matrix(self, name: str | None = None) -> Vector:
        """Their vectors `name` (may be left out if there is one) as an array of shape (points, dim)."""
        names = sorted({n for p in self for n in p.vectors})
        if name is None and len(names) == 1:
            name = names[0]
        missing = [p.id for p in self if name not in p.vectors]
        if name is None or missing:
            raise ValueError(
                f"not every point has a vector {name!r} (vectors here: {names}); were they asked for (with_vectors=True)?"
            )
        return np.stack([p.vectors[name] for p in self]) if self else np.empty((0, 0), np.float32)

    def to_pandas(self) -> pd.DataFrame:
        """A frame with one row a point: `id`, `score` (of hits), `document`, and the payload's top-level keys as
        columns. A key that has one of the first three names is called `payload.<name>`. Vectors that were asked for
        are columns `vector.<name>` of arrays.
        """
        import pandas as pd

        return pd.DataFrame([_row(p) for p in self], columns=None if self else ["id", "score", "document"])


def _row(point: StoredPoint) -> dict[str, Any]:
    row: dict[str, Any] = {"id": point.id}
    if isinstance(point, Hit):
        row["score"] = point.score
    row["document"] = point.document
    own = set(row)
    for key, value in (point.payload or {}).items():
        # A chunk's payload repeats its document's id.
        if key == "document" and value == point.document:
            continue
        row[f"payload.{key}" if key in own else key] = value
    row.update({f"vector.{name}": vector for name, vector in point.vectors.items()})
    row.update({f"sparse.{name}": vector for name, vector in point.sparse.items()})
    return row


@dataclass(slots=True)
class Page:
    """A page of points."""

    points: Rows[StoredPoint]
    #: Give this back for the next page; None at the end.
    cursor: str | None = None
    #: What is missing, if that was allowed and something is.
    partial: Partial | None = None


# ---- query ----


@dataclass(slots=True)
class ExplainLeg:
    """What one leg did in one segment."""

    leg: str
    shard: int = 0
    #: None for growing segments.
    segment: int | None = None
    strategy: str = ""
    #: Points of the segment that live and match the filter.
    matches: int = 0
    #: Distances or postings evaluated.
    evaluated: int = 0


@dataclass(slots=True)
class Stage:
    """One step of answering a question."""

    name: str
    took_ms: float = 0.0
    #: Hits before and after: `in` and `out` on the wire.
    in_: int = 0
    out: int = 0
    #: What was not done, and why.
    skipped: str | None = None


@dataclass(slots=True)
class Answer:
    """Hits, best first, and how they came about. It is a sequence of its hits."""

    hits: Rows[Hit]
    #: Token of the moment that was searched.
    token: str = ""
    explain: list[ExplainLeg] | None = None
    #: Time in the server, queueing included; None in a batch.
    took_ms: float | None = None
    #: What the caller should know, e.g. that only BM25 was used.
    notes: list[str] = field(default_factory=list)
    #: Steps of `ranking`, if it was asked for.
    stages: list[Stage] = field(default_factory=list)
    #: What is missing, if that was allowed and something is.
    partial: Partial | None = None

    def __iter__(self) -> typing.Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, place: int) -> Hit:
        return self.hits[place]

    @property
    def ids(self) -> list[str]:
        """Ids of the hits."""
        return self.hits.ids

    def to_pandas(self) -> pd.DataFrame:
        """See `Rows.to_pandas`."""
        return self.hits.to_pandas()


# ---- documents ----


@dataclass(slots=True)
class PutResult:
    """What putting one document did."""

    id: str
    #: The stored document was the same: nothing was written.
    unchanged: bool = False
    #: Chunks it has now.
    chunks: int = 0
    #: Chunks that had to be embedded.
    embedded: int = 0
    near_duplicate_of: str | None = None
    #: Not stored, because it is a near duplicate and the request said so.
    skipped: bool = False
    #: The request had stored it before (an attempt whose answer was lost, or that ended at a refused document behind it).
    replayed: bool = False


@dataclass(slots=True)
class PutError:
    """A document that is not stored, and why; after a `DeadlineError` it may be."""

    id: str
    error: Exception


@dataclass(slots=True)
class Put:
    """What putting documents did."""

    #: One for each document that was taken, in order.
    results: list[PutResult] = field(default_factory=list)
    #: Those that were left out, with `on_error="collect"`.
    errors: list[PutError] = field(default_factory=list)
    #: Token of the last write; None if nothing was written.
    token: str | None = None
    #: How safe the least safe of them is now, as of `Written`.
    durability: str = "sync"

    @property
    def chunks(self) -> int:
        """Chunks of all documents."""
        return sum(r.chunks for r in self.results)

    @property
    def embedded(self) -> int:
        """Chunks that had to be embedded."""
        return sum(r.embedded for r in self.results)

    @property
    def unchanged(self) -> int:
        """Documents that were stored already."""
        return sum(r.unchanged for r in self.results)


@dataclass(slots=True)
class StoredDocument:
    """A stored document."""

    id: str
    title: str = ""
    source: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    #: Number of chunks.
    chunks: int = 0
    #: Bytes of the text.
    text_bytes: int = 0
    checksum: str = ""
    version: str = ""
    trust: str | None = None
    provenance: Origin | None = None


@dataclass(slots=True)
class DocumentView:
    """A document, and its chunks if asked for."""

    document: StoredDocument
    #: In order, with payload and without vectors.
    chunks: Rows[StoredPoint] = field(default_factory=Rows)


@dataclass(slots=True)
class DocumentPage:
    """A page of documents."""

    documents: list[StoredDocument]
    #: Give this as `after_id` for the next page; None at the end.
    next: str | None = None


# ---- enrich ----


@dataclass(slots=True)
class ChatMessage:
    """One message for a chat model."""

    role: str
    content: str

    def to_dict(self) -> dict[str, str]:
        """As the SDKs of chat models take it."""
        return {"role": self.role, "content": self.content}


@dataclass(slots=True)
class Origin:
    """Where a document's content is from."""

    origin: str = ""
    author: str = ""
    fetched_at_ms: int | None = None
    licence: str = ""


@dataclass(slots=True)
class ContextItem:
    """A cited passage."""

    #: Citation number, from 1.
    n: int
    document: str
    title: str = ""
    #: Heading path.
    heading: list[str] = field(default_factory=list)
    #: Where the document came from.
    source: str = ""
    #: Bytes of the document's text, from and to.
    span: tuple[int, int] = (0, 0)
    text: str = ""
    #: 0..1, higher is better.
    score: float = 0.0
    #: Raw scores by leg: `dense` (cosine), `bm25`.
    scores: dict[str, float] = field(default_factory=dict)
    #: Points that make up this passage: neighbouring chunks are merged.
    ids: list[str] = field(default_factory=list)
    #: The collection, if the request named several.
    collection: str = ""
    trust: str | None = None
    provenance: Origin | None = None


@dataclass(slots=True)
class TokenUse:
    """Where the tokens went."""

    #: Tokens of the prompt as given.
    prompt: int = 0
    #: Tokens of the context with its fences and citations; never above the budget.
    context: int = 0
    budget: int = 0


@dataclass(slots=True)
class Dropped:
    """A candidate that was left out."""

    id: str
    document: str = ""
    reason: str = ""
    #: The collection, if the request named several.
    collection: str = ""


@dataclass(slots=True)
class Enriched:
    """An enriched prompt and its account."""

    #: What was put in, in citation order.
    context: list[ContextItem]
    tokens: TokenUse
    #: The enriched prompt, if format is string.
    prompt: str | None = None
    #: The enriched messages, if format is messages or anthropic.
    messages: list[ChatMessage] = field(default_factory=list)
    #: If format is anthropic: the system text.
    system: str | None = None
    #: Candidates that were left out, and why.
    dropped: list[Dropped] = field(default_factory=list)
    #: Names this retrieval in logs.
    retrieval_id: str = ""
    took_ms: float = 0.0
    notes: list[str] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    #: What was searched, if it is not the prompt.
    query: str | None = None
    #: What is missing, if that was allowed and something is.
    partial: Partial | None = None

    def to_pandas(self) -> pd.DataFrame:
        """A frame with one row a cited passage."""
        import pandas as pd

        names = ("n", "document", "title", "heading", "source", "score", "text")
        return pd.DataFrame([{n: getattr(c, n) for n in names} for c in self.context], columns=list(names))


# ---- JSON to these ----


def build(kind: type[T], json: Any) -> T:
    """A value of `kind` made of JSON."""
    try:
        return cast(T, _builder(cast(Any, kind))(json))
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise ServerError(f"an answer is no {kind.__name__}: {e!r}", code="bad_answer") from e


@functools.cache
def _builder(kind: Any) -> Callable[[Any], Any]:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (_builder(a) for a in args if a is not type(None))
        return lambda v: None if v is None else inner(v)
    if origin is np.ndarray:
        dtype = np.uint32 if "uint32" in repr(args) else np.float32
        return lambda v: v if isinstance(v, np.ndarray) else np.asarray(v, dtype=dtype)
    if origin in (list, Rows):
        item = _builder(args[0])
        make = Rows if origin is Rows else list
        return lambda v: make(map(item, v))
    if origin is dict and args[1] is not Any:
        value = _builder(args[1])
        return lambda v: {k: value(x) for k, x in v.items()}
    if origin is tuple:
        return tuple
    if is_dataclass(kind):
        return _dataclass_builder(cast(type, kind))
    return lambda v: v


def _dataclass_builder(kind: type) -> Callable[[Mapping[str, Any]], Any]:
    hints = typing.get_type_hints(kind)
    parts = [(f.name, f.name.rstrip("_"), _builder(hints[f.name])) for f in fields(kind)]
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}

    def make(json: Mapping[str, Any]) -> Any:
        given = {name: item(json[key]) for name, key, item in parts if json.get(key) is not None}
        if missing := needed - given.keys():
            # Proto3 does not send empty lists, nor REST what is absent.
            given.update({name: _empty(hints[name]) for name in missing})
        return kind(**given)

    return make


def _empty(hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (list, Rows, dict):
        return origin()
    raise KeyError(f"it lacks a {hint}")


def all_of(kind: type[T], json: Iterable[Any]) -> list[T]:
    """Values of `kind` made of a JSON array."""
    return [build(kind, one) for one in json]

"""What is asked, as plain typed values: names, units and defaults are those of REST and gRPC. None means the default of
the server. Wherever one of these is taken, a dict of the same names is taken too.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import mimetypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import InvalidError
from .filters import Condition, Filter, FilterLike, IdLike, whole_filter

Metric: TypeAlias = Literal["cosine", "dot", "euclid", "manhattan", "hamming"]
Format: TypeAlias = Literal["plain", "markdown", "html", "pdf"]
TrustLabel: TypeAlias = Literal["unverified", "trusted", "quarantined"]
#: A dense vector: a NumPy array or numbers.
VectorLike: TypeAlias = "npt.NDArray[Any] | Sequence[float]"


# ---- collections ----


@dataclass(slots=True)
class Hnsw:
    """A graph index of sealed segments."""

    #: Links per node, 2 to 256. Default: 16.
    m: int | None = None
    #: Candidates kept while inserting, m to 4,096. Default: 128.
    ef_construction: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"type": "hnsw", **_given(self)}


@dataclass(slots=True)
class Ivf:
    """Inverted lists of sealed segments, for large or cold ones and for bulk."""

    #: Lists of a segment, 1 to 65,536. Default: four times the root of its rows, and one for 32 of them at most.
    nlist: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"type": "ivf", **_given(self)}


@dataclass(slots=True)
class Faiss:
    """Whatever Faiss makes of a factory string, in servers that were built with it."""

    #: As Faiss documents it, such as `IVF1024,PQ48x4fs,RFlat`.
    factory: str

    def to_json(self) -> dict[str, Any]:
        return {"type": "faiss", **_given(self)}


@dataclass(slots=True)
class Flat:
    """An exact scan instead of an index."""

    def to_json(self) -> dict[str, Any]:
        return {"type": "flat"}


@dataclass(slots=True)
class Embedder:
    """The model that made a vector. The name of one of the server's is enough."""

    name: str
    revision: str | None = None
    dim: int | None = None
    normalized: bool | None = None
    query_prefix: str | None = None
    passage_prefix: str | None = None


@dataclass(slots=True)
class VectorSpec:
    """One named dense vector."""

    #: 1 to 65,535. May be left out if `embedder` names one of the server's.
    dim: int | None = None
    #: Default: cosine. `hamming` counts where vectors of zeros and ones differ; of packed ones `numpy.unpackbits(packed, axis=-1)` makes such.
    metric: Metric | None = None
    #: Default: Hnsw().
    index: Hnsw | Ivf | Flat | Faiss | None = None
    #: The model whose vectors live here: needed for text in `Nearest` and for documents.
    embedder: Embedder | str | None = None
    #: What an hnsw or ivf index ranks candidates by; scores are those of the vectors as given. Default: int8. Not for `hamming`.
    quantization: Literal["none", "int8", "int4"] | None = None

    def to_json(self) -> dict[str, Any]:
        return _with_embedder(self)


@dataclass(slots=True)
class SparseSpec:
    """One named sparse vector; closeness is the inner product."""

    embedder: Embedder | str | None = None

    def to_json(self) -> dict[str, Any]:
        return _with_embedder(self)


FieldType: TypeAlias = Literal["keyword", "integer", "float", "bool", "text", "stored"]


@dataclass(slots=True)
class TextField:
    """Full text, searched with BM25."""

    #: Language of stemmer and stop words, e.g. `english`, or `none`. Default: english.
    language: str | None = None
    #: Version of the analysis rules. Default: the newest, which is then recorded.
    version: int | None = None

    def to_json(self) -> dict[str, Any]:
        analyzer = _given(self)
        return {"type": "text", "analyzer": analyzer} if analyzer else {"type": "text"}


@dataclass(slots=True)
class Chunking:
    """How documents are cut into chunks."""

    #: Most word pieces in a chunk, 16 to 8,192. Default: 256.
    max_tokens: int | None = None
    #: Word pieces that a chunk repeats of the one before it. Default: 32.
    overlap_tokens: int | None = None
    #: Where documents are cut. Default: structure.
    strategy: Literal["structure", "sentence", "fixed"] | None = None


#: When a write is answered: after it was fsynced, or before that, which is then done within 100 ms.
Durability: TypeAlias = Literal["sync", "async"]


def durability_json(durability: Durability | None) -> dict[str, Any]:
    return {} if durability is None else {"durability": durability}


@dataclass(slots=True)
class Schema:
    """A collection's definition. Without vectors and fields it is the documents preset: a vector `dense` of the built-in
    embedder, full text over `text` and `title`, keywords `document` and `source`.

    ```python
    >>> Schema(vectors={"v": VectorSpec(3, index=Flat())}, fields={"lang": "keyword"}).to_json()["vectors"]
    {'v': {'dim': 3, 'index': {'type': 'flat'}}}

    ```
    """

    vectors: Mapping[str, VectorSpec | Mapping[str, Any]] | None = None
    #: Declared payload fields by dotted path: `"keyword"`, `"integer"`, ..., `"text"`, or `TextField("german")`.
    fields: Mapping[str, FieldType | TextField | Mapping[str, Any]] | None = None
    sparse: Mapping[str, SparseSpec | Mapping[str, Any]] | None = None
    #: Index every scalar of the payload that is not declared, so that it can be filtered. Default: true.
    dynamic: bool | None = None
    #: 1 to 64. Default: 1.
    shards: int | None = None
    chunking: Chunking | None = None
    #: When writes are answered that do not say it themselves. Default: as the server is configured, which is sync.
    durability: Durability | None = None

    def to_json(self) -> dict[str, Any]:
        json = _given(self)
        if "fields" in json:
            json["fields"] = {k: {"type": v} if isinstance(v, str) else v for k, v in json["fields"].items()}
        return json


# ---- points ----


@dataclass(slots=True)
class SparseVector:
    """Weights by term number: indices ascend strictly, values are finite and not zero."""

    indices: Sequence[int] | npt.NDArray[Any]
    values: Sequence[float] | npt.NDArray[Any]

    @classmethod
    def of(cls, weights: Mapping[int, float]) -> SparseVector:
        """Of a dict of weights by term number; zeros are left out."""
        items = sorted((int(i), float(w)) for i, w in weights.items() if w != 0)
        return cls([i for i, _ in items], [w for _, w in items])

    def to_json(self) -> dict[str, Any]:
        return {
            "indices": np.asarray(self.indices, dtype=np.uint32),
            "values": np.asarray(self.values, dtype=np.float32),
        }


#: A sparse vector: weights by term number, or `indices` and `values`.
SparseLike: TypeAlias = "SparseVector | Mapping[Any, Any]"


@dataclass(slots=True)
class EmbedInput:
    """What the server makes a vector of: exactly one of these. References are http(s) URLs or data: URIs."""

    text: str | None = None
    image: str | None = None
    audio: str | None = None


@dataclass(slots=True)
class Point:
    """A point as it is written."""

    #: Any UTF-8 string of 1 to 512 bytes, or an integer that means its digits.
    id: IdLike
    #: The vector of a collection that has exactly one. Give this or `vectors`, not both.
    vector: VectorLike | None = None
    #: Vectors by name. A point may lack some of the collection's.
    vectors: Mapping[str, VectorLike] | None = None
    #: At most 1 MiB as JSON and 32 levels deep.
    payload: Mapping[str, Any] | None = None
    #: The document this point is a chunk of. Decides the shard.
    document: IdLike | None = None
    #: Milliseconds since the Unix epoch after which the point is invisible.
    expires_at_ms: int | None = None
    sparse: Mapping[str, SparseLike] | None = None
    #: What the server embeds, by the name of a vector that has an embedder.
    embed: Mapping[str, EmbedInput | str] | None = None

    def to_json(self) -> dict[str, Any]:
        json: dict[str, Any] = {"id": str(self.id)}
        if self.vector is not None:
            json["vector"] = dense(self.vector)
        if self.vectors is not None:
            json["vectors"] = {name: dense(v) for name, v in self.vectors.items()}
        if self.payload is not None:
            json["payload"] = self.payload
        if self.document is not None:
            json["document"] = str(self.document)
        if self.expires_at_ms is not None:
            json["expires_at_ms"] = int(self.expires_at_ms)
        if self.sparse is not None:
            json["sparse"] = {name: sparse(v) for name, v in self.sparse.items()}
        if self.embed is not None:
            json["embed"] = {n: {"text": e} if isinstance(e, str) else plain(e) for n, e in self.embed.items()}
        return json


PointLike: TypeAlias = "Point | Mapping[str, Any]"


def point_json(point: PointLike) -> dict[str, Any]:
    """JSON of whatever is taken as a point."""
    if isinstance(point, Point):
        return point.to_json()
    if isinstance(point, Mapping):
        try:
            return Point(**point).to_json()
        except TypeError as e:
            raise InvalidError(f"a point has {', '.join(_names(Point))}: {e}", code="bad_request") from None
    raise TypeError(f"a point is a Point or a dict, got {type(point).__name__}")


def dense(vector: VectorLike) -> npt.NDArray[np.float32]:
    """A dense vector as it is sent."""
    array = floats(vector)
    if array.ndim != 1:
        raise InvalidError(f"a vector has one dimension, got an array of shape {array.shape}", code="bad_request")
    return array


def floats(values: Any) -> npt.NDArray[np.float32]:
    """Numbers as they are sent."""
    try:
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as e:
        raise InvalidError(f"a vector holds numbers: {e}", code="bad_request") from None


def sparse(vector: SparseLike) -> dict[str, Any]:
    """JSON of whatever is taken as a sparse vector."""
    if isinstance(vector, SparseVector):
        return vector.to_json()
    if "indices" in vector or "values" in vector:
        return SparseVector(vector.get("indices", ()), vector.get("values", ())).to_json()
    return SparseVector.of(vector).to_json()


# ---- query ----


@dataclass(slots=True)
class Nearest:
    """Nearest vectors, to exactly one of these."""

    vector: VectorLike | None = None
    #: Embedded with the model that the vector's schema names.
    text: str | None = None
    #: An http(s) URL or a data: URI.
    image: str | None = None
    audio: str | None = None
    #: Vector name; may be left out if the collection has exactly one.
    using: str | None = None
    #: The model whose vectors are meant: refused if the collection records another.
    embedder: Embedder | str | None = None

    def to_json(self) -> dict[str, Any]:
        json = _with_embedder(self)
        return json if self.vector is None else {**json, "vector": dense(self.vector)}


@dataclass(slots=True)
class Text:
    """BM25 over text fields."""

    query: str
    #: Text fields, each with an optional weight: `title^2`. Default: all, weight 1.
    fields: Sequence[str] | None = None


@dataclass(slots=True)
class Hybrid:
    """`Nearest` text and BM25 with the same words, fused: the default hybrid."""

    text: str
    using: str | None = None
    fields: Sequence[str] | None = None


@dataclass(slots=True)
class Sparse:
    """Largest inner products with a sparse vector: exactly one of `vector` and `text`."""

    vector: SparseLike | None = None
    text: str | None = None
    using: str | None = None
    #: As in `Nearest`.
    embedder: Embedder | str | None = None

    def to_json(self) -> dict[str, Any]:
        json = _with_embedder(self)
        return json if self.vector is None else {**json, "vector": sparse(self.vector)}


@dataclass(slots=True)
class Rrf:
    """Reciprocal rank fusion."""

    #: Default: 60.
    k: float | None = None
    #: One number a leg. Default: 1 each.
    weights: Sequence[float] | None = None


@dataclass(slots=True)
class Weighted:
    """Weighted mean of the legs' normalised scores."""

    weights: Sequence[float] | None = None


@dataclass(slots=True)
class Leg:
    """One leg of a `Prefetch`."""

    source: SourceLike
    #: Name under which its scores are reported. Default: by its kind.
    name: str | None = None
    #: Restricts this leg further.
    filter: FilterLike | None = None
    #: Candidates taken from this leg, 1 to 10,000. Default: 100.
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        json = {k: v for k, v in _given(self).items() if k not in ("source", "filter")}
        return {**json, **_filtered(self.filter), **source_json(self.source)}


@dataclass(slots=True)
class Prefetch:
    """Several legs joined into one list. At most 4 levels and 16 legs in all."""

    legs: Sequence[Leg | Source]
    #: Default: Rrf().
    fuse: Rrf | Weighted | None = None


Source: TypeAlias = Nearest | Text | Hybrid | Sparse | Prefetch
#: A source of hits. A string is a `Hybrid`, an array of numbers a `Nearest`, a dict is the JSON of REST.
SourceLike: TypeAlias = "Source | str | VectorLike | Mapping[str, Any]"


def source_json(source: SourceLike) -> dict[str, Any]:
    """JSON of whatever is taken as a source of hits: one key that names the kind, and `fuse` beside `prefetch`."""
    match source:
        case str():
            return {"hybrid": {"text": source}}
        case Nearest() | Text() | Hybrid() | Sparse():
            return {type(source).__name__.lower(): plain(source)}
        case Prefetch():
            json: dict[str, Any] = {"prefetch": [plain(x if isinstance(x, Leg) else Leg(x)) for x in source.legs]}
            if source.fuse is not None:
                json["fuse"] = {type(source.fuse).__name__.lower(): plain(source.fuse)}
            return json
        case Mapping():
            return dict(source)
        case _:
            return {"nearest": {"vector": dense(source)}}


@dataclass(slots=True)
class Decay:
    """Multiplies scores by age: score * (1 - weight + weight * 2^(-age / half_life))."""

    #: Dotted path of a number (milliseconds since the Unix epoch) or a string (RFC 3339).
    field: str
    half_life_ms: int
    #: 0 to 1. Default: 1.
    weight: float | None = None
    #: Default: now.
    origin_ms: int | None = None


@dataclass(slots=True)
class Rerank:
    """Orders the best anew by a model that reads question and text together."""

    #: One of the server's rerankers; may be left out if there is exactly one.
    model: str | None = None
    #: The words to compare with. Default: those of the query.
    query: str | None = None
    #: Hits that are reranked, 1 to 1,000. Default: 50.
    top: int | None = None
    #: How long it may take, 1 to 60,000. Default: 1,000.
    budget_ms: int | None = None
    #: Dotted path of the text. Default: `text`.
    field: str | None = None


@dataclass(slots=True)
class NearDuplicates:
    """Leaves out what says almost the same as a better hit."""

    #: Least Jaccard similarity of word 3-shingles. Default: 0.85.
    threshold: float | None = None


@dataclass(slots=True)
class Cap:
    """At most so many hits per value of a field."""

    field: str
    most: int


@dataclass(slots=True)
class Mmr:
    """Maximal marginal relevance over the hits' dense vectors."""

    #: 1: relevance alone, 0: diversity alone. Default: 0.7.
    lambda_: float | None = None
    #: Hits that are chosen from, 1 to 1,000. Default: 100, at least the hits wanted.
    candidates: int | None = None
    using: str | None = None

    def to_json(self) -> dict[str, Any]:
        json = _given(self)
        return {("lambda" if k == "lambda_" else k): v for k, v in json.items()}


@dataclass(slots=True)
class Ranking:
    """What is done with hits after they were found and fused, in the order of these fields."""

    decay: Decay | None = None
    rerank: Rerank | None = None
    near_duplicates: NearDuplicates | None = None
    caps: Sequence[Cap] | None = None
    mmr: Mmr | None = None


RankingLike: TypeAlias = "Ranking | Mapping[str, Any]"


@dataclass(slots=True)
class Query:
    """One query, for `query_batch`; the arguments of `query` are the same."""

    source: SourceLike
    filter: FilterLike | None = None
    limit: int | None = None
    offset: int | None = None
    with_payload: bool | None = None
    with_vectors: bool | None = None
    explain: bool | None = None
    ef: int | None = None
    nprobe: int | None = None
    #: Share of the nearest to find on average, 0.5 to 0.999. `ef` and `nprobe` win over it. Default: 0.95.
    target_recall: float | None = None
    exact: bool | None = None
    score_threshold: float | None = None
    after: str | None = None
    ranking: RankingLike | None = None
    #: The points of damaged segments may be missing.
    allow_partial: bool | None = None

    def to_json(self) -> dict[str, Any]:
        names = ("limit", "offset", "score_threshold", "after", "ranking", "allow_partial")
        json = {name: plain(value) for name in names if (value := getattr(self, name)) is not None}
        json.update(_filtered(self.filter))
        json.update(with_json(self.with_payload, self.with_vectors, self.explain))
        expert = ("ef", "nprobe", "target_recall", "exact")
        params = {name: value for name in expert if (value := getattr(self, name)) is not None}
        if params:
            json["params"] = params
        return {**source_json(self.source), **json}


def with_json(payload: bool | None, vectors: bool | None, explain: bool | None = None) -> dict[str, Any]:
    """The `with` of a read, if anything of it is said."""
    given = {"payload": payload, "vectors": vectors, "explain": explain}
    given = {k: v for k, v in given.items() if v is not None}
    return {"with": given} if given else {}


# ---- documents ----


@dataclass(slots=True)
class Provenance:
    """Where a document's content is from; comes back with citations."""

    origin: str | None = None
    author: str | None = None
    fetched_at_ms: int | None = None
    licence: str | None = None


_SUFFIXES: dict[str, Format] = {
    ".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf",
}  # fmt: skip
#: Formats that are given as files: a PDF is no text, and a page says itself how its letters are written.
_FILES = ("html", "pdf")


@dataclass(slots=True)
class Document:
    """A document as it is put: the server cuts, embeds and stores it.

    ```python
    >>> Document("tea.md", "# Tea\\n\\nGreen tea.", format="markdown", metadata={"topic": "kitchen"}).format
    'markdown'

    ```
    """

    #: Any UTF-8 string of 1 to 480 bytes. Its chunks are the points `<id>#0`, `<id>#1`, ...
    id: IdLike
    text: str = ""
    #: Default: plain.
    format: Format | None = None
    #: Shown with citations. Default: the text's own title.
    title: str | None = None
    #: Where it came from: a path or URL.
    source: str | None = None
    #: Kept with the document and at the top level of every chunk's payload, where it can be filtered.
    metadata: Mapping[str, Any] | None = None
    #: Default: unverified. Quarantined documents are not put into prompts unless a request names the label.
    trust: TrustLabel | None = None
    provenance: Provenance | None = None
    #: The file itself, for pages (html) and for formats that are not text (pdf).
    data: bytes | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, id: str | None = None, **given: Any) -> Document:
        """A document of a file, byte for byte; the format is told by its suffix, the id is the path as given. Plain text and
        Markdown are UTF-8: a file that is not is refused by `put`, and not here, where it would end the caller's generator
        and with it the files behind it."""
        path = Path(path)
        kind = given.pop("format", None) or _SUFFIXES.get(path.suffix.lower())
        if kind is None and not (mimetypes.guess_type(path.name)[0] or "text/").startswith("text/"):
            raise InvalidError(f"{path}: no format is known for {path.suffix}", code="bad_request")
        given.setdefault("source", path.as_posix())
        data = path.read_bytes()
        content: dict[str, Any] = {"data": data}
        if kind not in _FILES:
            with contextlib.suppress(UnicodeDecodeError):
                content = {"text": data.decode("utf-8")}
        return cls(id or path.as_posix(), format=kind, **content, **given)


DocumentLike: TypeAlias = "Document | Mapping[str, Any]"


def document_json(document: DocumentLike) -> dict[str, Any]:
    """JSON of whatever is taken as a document."""
    if isinstance(document, Mapping):
        try:
            document = Document(**document)
        except TypeError as e:
            raise InvalidError(f"a document has {', '.join(_names(Document))}: {e}", code="bad_request") from None
    if not isinstance(document, Document):
        raise TypeError(f"a document is a Document or a dict, got {type(document).__name__}")
    json = _given(document)
    if document.data is not None and not document.text:
        del json["text"]
        if document.format not in _FILES:
            _check_utf8(document.data, document.source or str(document.id))
    return {**json, "id": str(document.id)}


def _check_utf8(data: bytes, name: str) -> None:
    """Says so where a file that was to be text is not. What is text is given as such, which the server says."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as e:
        message = f"{name}: plain text and Markdown are UTF-8, and byte {e.start} is not"
        raise InvalidError(message, code="bad_document") from None


@dataclass(slots=True)
class Turn:
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: str


# ---- the JSON of all of it ----


def plain(value: Any) -> Any:
    """JSON of a request's parts; NumPy arrays stay what they are until a transport writes them."""
    if isinstance(value, (Filter, Condition)):
        return whole_filter(value)
    if isinstance(value, (str, bool, int, float, bytes, np.ndarray)) or value is None:
        return value
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return _given(value)
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def scalar(value: Any) -> Any:
    """What JSON has no word for, in its nearest word: NumPy's numbers and arrays, times, bytes (base64)."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise InvalidError(f"{type(value).__name__} is no JSON value", code="bad_request")


def weight(value: Any) -> int:
    """About how many bytes a part of a request takes, so that requests stay below the server's bound."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, str):
        return len(value) if value.isascii() else 3 * len(value)
    if isinstance(value, (bytes, bytearray)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(8 + weight(k) + weight(v) for k, v in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return sum(8 + weight(v) for v in value)
    return 8


def _given(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not left to the server."""
    return {f.name: plain(v) for f in fields(value) if (v := getattr(value, f.name)) is not None}


def _filtered(filter: FilterLike | None) -> dict[str, Any]:
    return {} if filter is None else {"filter": whole_filter(filter)}


def _with_embedder(value: VectorSpec | SparseSpec | Nearest | Sparse) -> dict[str, Any]:
    json = _given(value)
    if "embedder" in json:
        json["embedder"] = embedder_json(json["embedder"])
    return json


def embedder_json(embedder: Embedder | Mapping[str, Any] | str) -> Any:
    """JSON of whatever is taken as an embedder; a string is its name."""
    return {"name": embedder} if isinstance(embedder, str) else plain(embedder)


def _names(kind: type) -> list[str]:
    return [f.name for f in fields(kind)]

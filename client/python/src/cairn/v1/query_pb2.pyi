from cairn.v1 import collections_pb2 as _collections_pb2
from cairn.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QueryRequest(_message.Message):
    __slots__ = ("collection", "nearest", "text", "hybrid", "prefetch", "sparse", "filter", "limit", "offset", "params", "score_threshold", "after", "ranking", "allow_partial")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NEAREST_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    HYBRID_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    WITH_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    RANKING_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    collection: str
    nearest: Nearest
    text: Text
    hybrid: Hybrid
    prefetch: Prefetch
    sparse: Sparse
    filter: _common_pb2.Filter
    limit: int
    offset: int
    params: Params
    score_threshold: float
    after: str
    ranking: Ranking
    allow_partial: bool
    def __init__(self, collection: _Optional[str] = ..., nearest: _Optional[_Union[Nearest, _Mapping]] = ..., text: _Optional[_Union[Text, _Mapping]] = ..., hybrid: _Optional[_Union[Hybrid, _Mapping]] = ..., prefetch: _Optional[_Union[Prefetch, _Mapping]] = ..., sparse: _Optional[_Union[Sparse, _Mapping]] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ..., params: _Optional[_Union[Params, _Mapping]] = ..., score_threshold: _Optional[float] = ..., after: _Optional[str] = ..., ranking: _Optional[_Union[Ranking, _Mapping]] = ..., allow_partial: bool = ..., **kwargs) -> None: ...

class Nearest(_message.Message):
    __slots__ = ("vector", "text", "image", "audio", "using", "embedder")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    USING_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    vector: _common_pb2.Vector
    text: str
    image: str
    audio: str
    using: str
    embedder: _collections_pb2.Embedder
    def __init__(self, vector: _Optional[_Union[_common_pb2.Vector, _Mapping]] = ..., text: _Optional[str] = ..., image: _Optional[str] = ..., audio: _Optional[str] = ..., using: _Optional[str] = ..., embedder: _Optional[_Union[_collections_pb2.Embedder, _Mapping]] = ...) -> None: ...

class Sparse(_message.Message):
    __slots__ = ("vector", "text", "using", "embedder")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    USING_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    vector: _common_pb2.SparseVector
    text: str
    using: str
    embedder: _collections_pb2.Embedder
    def __init__(self, vector: _Optional[_Union[_common_pb2.SparseVector, _Mapping]] = ..., text: _Optional[str] = ..., using: _Optional[str] = ..., embedder: _Optional[_Union[_collections_pb2.Embedder, _Mapping]] = ...) -> None: ...

class Text(_message.Message):
    __slots__ = ("query", "fields")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    query: str
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, query: _Optional[str] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class Hybrid(_message.Message):
    __slots__ = ("text", "using", "fields")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    USING_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    text: str
    using: str
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, text: _Optional[str] = ..., using: _Optional[str] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class Prefetch(_message.Message):
    __slots__ = ("legs", "rrf", "weighted")
    LEGS_FIELD_NUMBER: _ClassVar[int]
    RRF_FIELD_NUMBER: _ClassVar[int]
    WEIGHTED_FIELD_NUMBER: _ClassVar[int]
    legs: _containers.RepeatedCompositeFieldContainer[Leg]
    rrf: Rrf
    weighted: Weighted
    def __init__(self, legs: _Optional[_Iterable[_Union[Leg, _Mapping]]] = ..., rrf: _Optional[_Union[Rrf, _Mapping]] = ..., weighted: _Optional[_Union[Weighted, _Mapping]] = ...) -> None: ...

class Leg(_message.Message):
    __slots__ = ("name", "nearest", "text", "hybrid", "prefetch", "sparse", "filter", "limit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEAREST_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    HYBRID_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    nearest: Nearest
    text: Text
    hybrid: Hybrid
    prefetch: Prefetch
    sparse: Sparse
    filter: _common_pb2.Filter
    limit: int
    def __init__(self, name: _Optional[str] = ..., nearest: _Optional[_Union[Nearest, _Mapping]] = ..., text: _Optional[_Union[Text, _Mapping]] = ..., hybrid: _Optional[_Union[Hybrid, _Mapping]] = ..., prefetch: _Optional[_Union[Prefetch, _Mapping]] = ..., sparse: _Optional[_Union[Sparse, _Mapping]] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ...) -> None: ...

class Rrf(_message.Message):
    __slots__ = ("k", "weights")
    K_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    k: float
    weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, k: _Optional[float] = ..., weights: _Optional[_Iterable[float]] = ...) -> None: ...

class Weighted(_message.Message):
    __slots__ = ("weights",)
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, weights: _Optional[_Iterable[float]] = ...) -> None: ...

class Ranking(_message.Message):
    __slots__ = ("decay", "rerank", "near_duplicates", "caps", "mmr")
    DECAY_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    NEAR_DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    CAPS_FIELD_NUMBER: _ClassVar[int]
    MMR_FIELD_NUMBER: _ClassVar[int]
    decay: Decay
    rerank: Rerank
    near_duplicates: NearDuplicates
    caps: _containers.RepeatedCompositeFieldContainer[Cap]
    mmr: Mmr
    def __init__(self, decay: _Optional[_Union[Decay, _Mapping]] = ..., rerank: _Optional[_Union[Rerank, _Mapping]] = ..., near_duplicates: _Optional[_Union[NearDuplicates, _Mapping]] = ..., caps: _Optional[_Iterable[_Union[Cap, _Mapping]]] = ..., mmr: _Optional[_Union[Mmr, _Mapping]] = ...) -> None: ...

class Decay(_message.Message):
    __slots__ = ("field", "half_life_ms", "weight", "origin_ms")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    HALF_LIFE_MS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_MS_FIELD_NUMBER: _ClassVar[int]
    field: str
    half_life_ms: int
    weight: float
    origin_ms: int
    def __init__(self, field: _Optional[str] = ..., half_life_ms: _Optional[int] = ..., weight: _Optional[float] = ..., origin_ms: _Optional[int] = ...) -> None: ...

class Rerank(_message.Message):
    __slots__ = ("model", "query", "top", "budget_ms", "field")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    model: str
    query: str
    top: int
    budget_ms: int
    field: str
    def __init__(self, model: _Optional[str] = ..., query: _Optional[str] = ..., top: _Optional[int] = ..., budget_ms: _Optional[int] = ..., field: _Optional[str] = ...) -> None: ...

class NearDuplicates(_message.Message):
    __slots__ = ("threshold",)
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    threshold: float
    def __init__(self, threshold: _Optional[float] = ...) -> None: ...

class Cap(_message.Message):
    __slots__ = ("field", "most")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    field: str
    most: int
    def __init__(self, field: _Optional[str] = ..., most: _Optional[int] = ...) -> None: ...

class Mmr(_message.Message):
    __slots__ = ("candidates", "using")
    LAMBDA_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    USING_FIELD_NUMBER: _ClassVar[int]
    candidates: int
    using: str
    def __init__(self, candidates: _Optional[int] = ..., using: _Optional[str] = ..., **kwargs) -> None: ...

class Stage(_message.Message):
    __slots__ = ("name", "took_ms", "out", "skipped")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    IN_FIELD_NUMBER: _ClassVar[int]
    OUT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    name: str
    took_ms: float
    out: int
    skipped: str
    def __init__(self, name: _Optional[str] = ..., took_ms: _Optional[float] = ..., out: _Optional[int] = ..., skipped: _Optional[str] = ..., **kwargs) -> None: ...

class Params(_message.Message):
    __slots__ = ("ef", "exact", "nprobe", "target_recall")
    EF_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    TARGET_RECALL_FIELD_NUMBER: _ClassVar[int]
    ef: int
    exact: bool
    nprobe: int
    target_recall: float
    def __init__(self, ef: _Optional[int] = ..., exact: bool = ..., nprobe: _Optional[int] = ..., target_recall: _Optional[float] = ...) -> None: ...

class QueryResponse(_message.Message):
    __slots__ = ("hits", "token", "explain", "took_ms", "notes", "stages", "partial")
    HITS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    token: str
    explain: Explain
    took_ms: float
    notes: _containers.RepeatedScalarFieldContainer[str]
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    partial: _common_pb2.Partial
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., token: _Optional[str] = ..., explain: _Optional[_Union[Explain, _Mapping]] = ..., took_ms: _Optional[float] = ..., notes: _Optional[_Iterable[str]] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ..., partial: _Optional[_Union[_common_pb2.Partial, _Mapping]] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("point", "score", "legs")
    POINT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LEGS_FIELD_NUMBER: _ClassVar[int]
    point: _common_pb2.Point
    score: float
    legs: _containers.RepeatedCompositeFieldContainer[LegScore]
    def __init__(self, point: _Optional[_Union[_common_pb2.Point, _Mapping]] = ..., score: _Optional[float] = ..., legs: _Optional[_Iterable[_Union[LegScore, _Mapping]]] = ...) -> None: ...

class LegScore(_message.Message):
    __slots__ = ("leg", "raw", "rank")
    LEG_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    leg: str
    raw: float
    rank: int
    def __init__(self, leg: _Optional[str] = ..., raw: _Optional[float] = ..., rank: _Optional[int] = ...) -> None: ...

class Explain(_message.Message):
    __slots__ = ("legs",)
    LEGS_FIELD_NUMBER: _ClassVar[int]
    legs: _containers.RepeatedCompositeFieldContainer[ExplainLeg]
    def __init__(self, legs: _Optional[_Iterable[_Union[ExplainLeg, _Mapping]]] = ...) -> None: ...

class ExplainLeg(_message.Message):
    __slots__ = ("leg", "shard", "segment", "strategy", "matches", "evaluated")
    LEG_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    EVALUATED_FIELD_NUMBER: _ClassVar[int]
    leg: str
    shard: int
    segment: int
    strategy: str
    matches: int
    evaluated: int
    def __init__(self, leg: _Optional[str] = ..., shard: _Optional[int] = ..., segment: _Optional[int] = ..., strategy: _Optional[str] = ..., matches: _Optional[int] = ..., evaluated: _Optional[int] = ...) -> None: ...

class QueryBatchRequest(_message.Message):
    __slots__ = ("collection", "queries")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    queries: _containers.RepeatedCompositeFieldContainer[QueryRequest]
    def __init__(self, collection: _Optional[str] = ..., queries: _Optional[_Iterable[_Union[QueryRequest, _Mapping]]] = ...) -> None: ...

class QueryBatchResponse(_message.Message):
    __slots__ = ("results", "took_ms")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[QueryResponse]
    took_ms: float
    def __init__(self, results: _Optional[_Iterable[_Union[QueryResponse, _Mapping]]] = ..., took_ms: _Optional[float] = ...) -> None: ...

from cairn.v1 import common_pb2 as _common_pb2
from cairn.v1 import operations_pb2 as _operations_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Quantization(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUANTIZATION_UNSPECIFIED: _ClassVar[Quantization]
    QUANTIZATION_NONE: _ClassVar[Quantization]
    QUANTIZATION_INT8: _ClassVar[Quantization]
    QUANTIZATION_INT4: _ClassVar[Quantization]

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_COSINE: _ClassVar[Metric]
    METRIC_DOT: _ClassVar[Metric]
    METRIC_EUCLID: _ClassVar[Metric]
    METRIC_MANHATTAN: _ClassVar[Metric]
    METRIC_HAMMING: _ClassVar[Metric]

class ChunkStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHUNK_STRATEGY_UNSPECIFIED: _ClassVar[ChunkStrategy]
    CHUNK_STRATEGY_STRUCTURE: _ClassVar[ChunkStrategy]
    CHUNK_STRATEGY_SENTENCE: _ClassVar[ChunkStrategy]
    CHUNK_STRATEGY_FIXED: _ClassVar[ChunkStrategy]
QUANTIZATION_UNSPECIFIED: Quantization
QUANTIZATION_NONE: Quantization
QUANTIZATION_INT8: Quantization
QUANTIZATION_INT4: Quantization
METRIC_UNSPECIFIED: Metric
METRIC_COSINE: Metric
METRIC_DOT: Metric
METRIC_EUCLID: Metric
METRIC_MANHATTAN: Metric
METRIC_HAMMING: Metric
CHUNK_STRATEGY_UNSPECIFIED: ChunkStrategy
CHUNK_STRATEGY_STRUCTURE: ChunkStrategy
CHUNK_STRATEGY_SENTENCE: ChunkStrategy
CHUNK_STRATEGY_FIXED: ChunkStrategy

class OptimizeRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("collection", "schema")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    collection: str
    schema: Schema
    def __init__(self, collection: _Optional[str] = ..., schema: _Optional[_Union[Schema, _Mapping]] = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class DeleteCollectionRequest(_message.Message):
    __slots__ = ("collection", "request_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    request_id: str
    def __init__(self, collection: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collections: _Optional[_Iterable[str]] = ...) -> None: ...

class Schema(_message.Message):
    __slots__ = ("vectors", "fields", "dynamic", "shards", "chunking", "sparse", "durability")
    class VectorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: VectorSpec
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[VectorSpec, _Mapping]] = ...) -> None: ...
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FieldSpec
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FieldSpec, _Mapping]] = ...) -> None: ...
    class SparseEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: SparseSpec
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[SparseSpec, _Mapping]] = ...) -> None: ...
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    DYNAMIC_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    CHUNKING_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.MessageMap[str, VectorSpec]
    fields: _containers.MessageMap[str, FieldSpec]
    dynamic: bool
    shards: int
    chunking: Chunking
    sparse: _containers.MessageMap[str, SparseSpec]
    durability: _common_pb2.Durability
    def __init__(self, vectors: _Optional[_Mapping[str, VectorSpec]] = ..., fields: _Optional[_Mapping[str, FieldSpec]] = ..., dynamic: bool = ..., shards: _Optional[int] = ..., chunking: _Optional[_Union[Chunking, _Mapping]] = ..., sparse: _Optional[_Mapping[str, SparseSpec]] = ..., durability: _Optional[_Union[_common_pb2.Durability, str]] = ...) -> None: ...

class VectorSpec(_message.Message):
    __slots__ = ("dim", "metric", "flat", "hnsw", "ivf", "faiss", "embedder", "quantization")
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    FLAT_FIELD_NUMBER: _ClassVar[int]
    HNSW_FIELD_NUMBER: _ClassVar[int]
    IVF_FIELD_NUMBER: _ClassVar[int]
    FAISS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    dim: int
    metric: Metric
    flat: FlatIndex
    hnsw: HnswIndex
    ivf: IvfIndex
    faiss: FaissIndex
    embedder: Embedder
    quantization: Quantization
    def __init__(self, dim: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., flat: _Optional[_Union[FlatIndex, _Mapping]] = ..., hnsw: _Optional[_Union[HnswIndex, _Mapping]] = ..., ivf: _Optional[_Union[IvfIndex, _Mapping]] = ..., faiss: _Optional[_Union[FaissIndex, _Mapping]] = ..., embedder: _Optional[_Union[Embedder, _Mapping]] = ..., quantization: _Optional[_Union[Quantization, str]] = ...) -> None: ...

class SparseSpec(_message.Message):
    __slots__ = ("embedder",)
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    embedder: Embedder
    def __init__(self, embedder: _Optional[_Union[Embedder, _Mapping]] = ...) -> None: ...

class FlatIndex(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HnswIndex(_message.Message):
    __slots__ = ("m", "ef_construction")
    M_FIELD_NUMBER: _ClassVar[int]
    EF_CONSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    m: int
    ef_construction: int
    def __init__(self, m: _Optional[int] = ..., ef_construction: _Optional[int] = ...) -> None: ...

class IvfIndex(_message.Message):
    __slots__ = ("nlist",)
    NLIST_FIELD_NUMBER: _ClassVar[int]
    nlist: int
    def __init__(self, nlist: _Optional[int] = ...) -> None: ...

class FaissIndex(_message.Message):
    __slots__ = ("factory",)
    FACTORY_FIELD_NUMBER: _ClassVar[int]
    factory: str
    def __init__(self, factory: _Optional[str] = ...) -> None: ...

class Embedder(_message.Message):
    __slots__ = ("name", "revision", "dim", "normalized", "query_prefix", "passage_prefix")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_FIELD_NUMBER: _ClassVar[int]
    QUERY_PREFIX_FIELD_NUMBER: _ClassVar[int]
    PASSAGE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    name: str
    revision: str
    dim: int
    normalized: bool
    query_prefix: str
    passage_prefix: str
    def __init__(self, name: _Optional[str] = ..., revision: _Optional[str] = ..., dim: _Optional[int] = ..., normalized: bool = ..., query_prefix: _Optional[str] = ..., passage_prefix: _Optional[str] = ...) -> None: ...

class FieldSpec(_message.Message):
    __slots__ = ("keyword", "integer", "float", "bool", "text", "stored")
    KEYWORD_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    FLOAT_FIELD_NUMBER: _ClassVar[int]
    BOOL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    keyword: KeywordField
    integer: IntegerField
    float: FloatField
    bool: BoolField
    text: TextField
    stored: StoredField
    def __init__(self, keyword: _Optional[_Union[KeywordField, _Mapping]] = ..., integer: _Optional[_Union[IntegerField, _Mapping]] = ..., float: _Optional[_Union[FloatField, _Mapping]] = ..., bool: _Optional[_Union[BoolField, _Mapping]] = ..., text: _Optional[_Union[TextField, _Mapping]] = ..., stored: _Optional[_Union[StoredField, _Mapping]] = ...) -> None: ...

class KeywordField(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IntegerField(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FloatField(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BoolField(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StoredField(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TextField(_message.Message):
    __slots__ = ("language", "version")
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    language: str
    version: int
    def __init__(self, language: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class Chunking(_message.Message):
    __slots__ = ("max_tokens", "overlap_tokens", "strategy")
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    overlap_tokens: int
    strategy: ChunkStrategy
    def __init__(self, max_tokens: _Optional[int] = ..., overlap_tokens: _Optional[int] = ..., strategy: _Optional[_Union[ChunkStrategy, str]] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("name", "schema", "points", "documents", "indexed_points", "segments", "dead_rows", "disk_bytes", "growing_bytes", "optimizing", "notes", "damaged", "recall_estimate")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    INDEXED_POINTS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    DEAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    GROWING_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZING_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    RECALL_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    schema: Schema
    points: int
    documents: int
    indexed_points: int
    segments: int
    dead_rows: int
    disk_bytes: int
    growing_bytes: int
    optimizing: bool
    notes: _containers.RepeatedScalarFieldContainer[str]
    damaged: _containers.RepeatedCompositeFieldContainer[_common_pb2.DamagedSegment]
    recall_estimate: RecallEstimate
    def __init__(self, name: _Optional[str] = ..., schema: _Optional[_Union[Schema, _Mapping]] = ..., points: _Optional[int] = ..., documents: _Optional[int] = ..., indexed_points: _Optional[int] = ..., segments: _Optional[int] = ..., dead_rows: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., growing_bytes: _Optional[int] = ..., optimizing: bool = ..., notes: _Optional[_Iterable[str]] = ..., damaged: _Optional[_Iterable[_Union[_common_pb2.DamagedSegment, _Mapping]]] = ..., recall_estimate: _Optional[_Union[RecallEstimate, _Mapping]] = ...) -> None: ...

class RecallEstimate(_message.Message):
    __slots__ = ("recall", "questions")
    RECALL_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    recall: float
    questions: int
    def __init__(self, recall: _Optional[float] = ..., questions: _Optional[int] = ...) -> None: ...

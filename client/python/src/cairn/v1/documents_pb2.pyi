from cairn.v1 import common_pb2 as _common_pb2
from cairn.v1 import query_pb2 as _query_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DocumentFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DOCUMENT_FORMAT_UNSPECIFIED: _ClassVar[DocumentFormat]
    DOCUMENT_FORMAT_PLAIN: _ClassVar[DocumentFormat]
    DOCUMENT_FORMAT_MARKDOWN: _ClassVar[DocumentFormat]
    DOCUMENT_FORMAT_HTML: _ClassVar[DocumentFormat]
    DOCUMENT_FORMAT_PDF: _ClassVar[DocumentFormat]

class Trust(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUST_UNSPECIFIED: _ClassVar[Trust]
    TRUST_UNVERIFIED: _ClassVar[Trust]
    TRUST_TRUSTED: _ClassVar[Trust]
    TRUST_QUARANTINED: _ClassVar[Trust]

class OnNearDuplicate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_NEAR_DUPLICATE_UNSPECIFIED: _ClassVar[OnNearDuplicate]
    ON_NEAR_DUPLICATE_STORE: _ClassVar[OnNearDuplicate]
    ON_NEAR_DUPLICATE_SKIP: _ClassVar[OnNearDuplicate]

class EnrichFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENRICH_FORMAT_UNSPECIFIED: _ClassVar[EnrichFormat]
    ENRICH_FORMAT_STRING: _ClassVar[EnrichFormat]
    ENRICH_FORMAT_MESSAGES: _ClassVar[EnrichFormat]
    ENRICH_FORMAT_ANTHROPIC: _ClassVar[EnrichFormat]

class RetrievalMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RETRIEVAL_MODE_UNSPECIFIED: _ClassVar[RetrievalMode]
    RETRIEVAL_MODE_HYBRID: _ClassVar[RetrievalMode]
    RETRIEVAL_MODE_DENSE: _ClassVar[RetrievalMode]
    RETRIEVAL_MODE_BM25: _ClassVar[RetrievalMode]
    RETRIEVAL_MODE_SPARSE: _ClassVar[RetrievalMode]
DOCUMENT_FORMAT_UNSPECIFIED: DocumentFormat
DOCUMENT_FORMAT_PLAIN: DocumentFormat
DOCUMENT_FORMAT_MARKDOWN: DocumentFormat
DOCUMENT_FORMAT_HTML: DocumentFormat
DOCUMENT_FORMAT_PDF: DocumentFormat
TRUST_UNSPECIFIED: Trust
TRUST_UNVERIFIED: Trust
TRUST_TRUSTED: Trust
TRUST_QUARANTINED: Trust
ON_NEAR_DUPLICATE_UNSPECIFIED: OnNearDuplicate
ON_NEAR_DUPLICATE_STORE: OnNearDuplicate
ON_NEAR_DUPLICATE_SKIP: OnNearDuplicate
ENRICH_FORMAT_UNSPECIFIED: EnrichFormat
ENRICH_FORMAT_STRING: EnrichFormat
ENRICH_FORMAT_MESSAGES: EnrichFormat
ENRICH_FORMAT_ANTHROPIC: EnrichFormat
RETRIEVAL_MODE_UNSPECIFIED: RetrievalMode
RETRIEVAL_MODE_HYBRID: RetrievalMode
RETRIEVAL_MODE_DENSE: RetrievalMode
RETRIEVAL_MODE_BM25: RetrievalMode
RETRIEVAL_MODE_SPARSE: RetrievalMode

class Provenance(_message.Message):
    __slots__ = ("origin", "author", "fetched_at_ms", "licence")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    FETCHED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    origin: str
    author: str
    fetched_at_ms: int
    licence: str
    def __init__(self, origin: _Optional[str] = ..., author: _Optional[str] = ..., fetched_at_ms: _Optional[int] = ..., licence: _Optional[str] = ...) -> None: ...

class DocumentInput(_message.Message):
    __slots__ = ("id", "text", "format", "title", "source", "metadata", "trust", "provenance", "data")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    id: str
    text: str
    format: DocumentFormat
    title: str
    source: str
    metadata: _common_pb2.Struct
    trust: Trust
    provenance: Provenance
    data: bytes
    def __init__(self, id: _Optional[str] = ..., text: _Optional[str] = ..., format: _Optional[_Union[DocumentFormat, str]] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., metadata: _Optional[_Union[_common_pb2.Struct, _Mapping]] = ..., trust: _Optional[_Union[Trust, str]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PutDocumentsRequest(_message.Message):
    __slots__ = ("collection", "documents", "request_id", "on_near_duplicate", "durability")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ON_NEAR_DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    documents: _containers.RepeatedCompositeFieldContainer[DocumentInput]
    request_id: str
    on_near_duplicate: OnNearDuplicate
    durability: _common_pb2.Durability
    def __init__(self, collection: _Optional[str] = ..., documents: _Optional[_Iterable[_Union[DocumentInput, _Mapping]]] = ..., request_id: _Optional[str] = ..., on_near_duplicate: _Optional[_Union[OnNearDuplicate, str]] = ..., durability: _Optional[_Union[_common_pb2.Durability, str]] = ...) -> None: ...

class PutDocumentsResponse(_message.Message):
    __slots__ = ("results", "token", "durability")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[PutDocumentResult]
    token: str
    durability: _common_pb2.Durability
    def __init__(self, results: _Optional[_Iterable[_Union[PutDocumentResult, _Mapping]]] = ..., token: _Optional[str] = ..., durability: _Optional[_Union[_common_pb2.Durability, str]] = ...) -> None: ...

class PutDocumentResult(_message.Message):
    __slots__ = ("id", "unchanged", "chunks", "embedded", "near_duplicate_of", "skipped", "replayed")
    ID_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    NEAR_DUPLICATE_OF_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    id: str
    unchanged: bool
    chunks: int
    embedded: int
    near_duplicate_of: str
    skipped: bool
    replayed: bool
    def __init__(self, id: _Optional[str] = ..., unchanged: bool = ..., chunks: _Optional[int] = ..., embedded: _Optional[int] = ..., near_duplicate_of: _Optional[str] = ..., skipped: bool = ..., replayed: bool = ...) -> None: ...

class PutStreamRequest(_message.Message):
    __slots__ = ("collection", "document", "on_near_duplicate", "request_id", "durability")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    ON_NEAR_DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    document: DocumentInput
    on_near_duplicate: OnNearDuplicate
    request_id: str
    durability: _common_pb2.Durability
    def __init__(self, collection: _Optional[str] = ..., document: _Optional[_Union[DocumentInput, _Mapping]] = ..., on_near_duplicate: _Optional[_Union[OnNearDuplicate, str]] = ..., request_id: _Optional[str] = ..., durability: _Optional[_Union[_common_pb2.Durability, str]] = ...) -> None: ...

class PutStreamResponse(_message.Message):
    __slots__ = ("id", "result", "error", "token")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    id: str
    result: PutDocumentResult
    error: StreamError
    token: str
    def __init__(self, id: _Optional[str] = ..., result: _Optional[_Union[PutDocumentResult, _Mapping]] = ..., error: _Optional[_Union[StreamError, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class StreamError(_message.Message):
    __slots__ = ("code", "message", "pointer", "retryable")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    POINTER_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    pointer: str
    retryable: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., pointer: _Optional[str] = ..., retryable: bool = ...) -> None: ...

class Document(_message.Message):
    __slots__ = ("id", "title", "source", "metadata", "chunks", "text_bytes", "checksum", "version", "trust", "provenance")
    ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    title: str
    source: str
    metadata: _common_pb2.Struct
    chunks: int
    text_bytes: int
    checksum: str
    version: str
    trust: Trust
    provenance: Provenance
    def __init__(self, id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., metadata: _Optional[_Union[_common_pb2.Struct, _Mapping]] = ..., chunks: _Optional[int] = ..., text_bytes: _Optional[int] = ..., checksum: _Optional[str] = ..., version: _Optional[str] = ..., trust: _Optional[_Union[Trust, str]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class GetDocumentRequest(_message.Message):
    __slots__ = ("collection", "id", "with_chunks")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    WITH_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    id: str
    with_chunks: bool
    def __init__(self, collection: _Optional[str] = ..., id: _Optional[str] = ..., with_chunks: bool = ...) -> None: ...

class GetDocumentResponse(_message.Message):
    __slots__ = ("document", "chunks")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    document: Document
    chunks: _containers.RepeatedCompositeFieldContainer[_common_pb2.Point]
    def __init__(self, document: _Optional[_Union[Document, _Mapping]] = ..., chunks: _Optional[_Iterable[_Union[_common_pb2.Point, _Mapping]]] = ...) -> None: ...

class DeleteDocumentsRequest(_message.Message):
    __slots__ = ("collection", "ids", "request_id", "durability")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    durability: _common_pb2.Durability
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ..., durability: _Optional[_Union[_common_pb2.Durability, str]] = ...) -> None: ...

class ListDocumentsRequest(_message.Message):
    __slots__ = ("collection", "after_id", "limit")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    AFTER_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    after_id: str
    limit: int
    def __init__(self, collection: _Optional[str] = ..., after_id: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListDocumentsResponse(_message.Message):
    __slots__ = ("documents", "next")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[Document]
    next: str
    def __init__(self, documents: _Optional[_Iterable[_Union[Document, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("role", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ...) -> None: ...

class EnrichRequest(_message.Message):
    __slots__ = ("collection", "prompt", "token_budget", "tokenizer", "format", "filter", "limit", "max_chunks", "max_per_document", "score_threshold", "mode", "after", "collections", "conversation", "template", "max_per_source", "neighbours", "ranking", "explain", "trust", "allow_partial")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BUDGET_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    MAX_PER_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    MAX_PER_SOURCE_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    RANKING_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    collection: str
    prompt: str
    token_budget: int
    tokenizer: str
    format: EnrichFormat
    filter: _common_pb2.Filter
    limit: int
    max_chunks: int
    max_per_document: int
    score_threshold: float
    mode: RetrievalMode
    after: str
    collections: _containers.RepeatedScalarFieldContainer[str]
    conversation: _containers.RepeatedCompositeFieldContainer[Turn]
    template: str
    max_per_source: int
    neighbours: int
    ranking: _query_pb2.Ranking
    explain: bool
    trust: _containers.RepeatedScalarFieldContainer[Trust]
    allow_partial: bool
    def __init__(self, collection: _Optional[str] = ..., prompt: _Optional[str] = ..., token_budget: _Optional[int] = ..., tokenizer: _Optional[str] = ..., format: _Optional[_Union[EnrichFormat, str]] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., max_chunks: _Optional[int] = ..., max_per_document: _Optional[int] = ..., score_threshold: _Optional[float] = ..., mode: _Optional[_Union[RetrievalMode, str]] = ..., after: _Optional[str] = ..., collections: _Optional[_Iterable[str]] = ..., conversation: _Optional[_Iterable[_Union[Turn, _Mapping]]] = ..., template: _Optional[str] = ..., max_per_source: _Optional[int] = ..., neighbours: _Optional[int] = ..., ranking: _Optional[_Union[_query_pb2.Ranking, _Mapping]] = ..., explain: bool = ..., trust: _Optional[_Iterable[_Union[Trust, str]]] = ..., allow_partial: bool = ...) -> None: ...

class EnrichResponse(_message.Message):
    __slots__ = ("prompt", "messages", "context", "tokens", "dropped", "retrieval_id", "took_ms", "notes", "system", "stages", "query", "partial")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_ID_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    messages: _containers.RepeatedCompositeFieldContainer[ChatMessage]
    context: _containers.RepeatedCompositeFieldContainer[ContextItem]
    tokens: TokenUse
    dropped: _containers.RepeatedCompositeFieldContainer[Dropped]
    retrieval_id: str
    took_ms: float
    notes: _containers.RepeatedScalarFieldContainer[str]
    system: str
    stages: _containers.RepeatedCompositeFieldContainer[_query_pb2.Stage]
    query: str
    partial: _common_pb2.Partial
    def __init__(self, prompt: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[ChatMessage, _Mapping]]] = ..., context: _Optional[_Iterable[_Union[ContextItem, _Mapping]]] = ..., tokens: _Optional[_Union[TokenUse, _Mapping]] = ..., dropped: _Optional[_Iterable[_Union[Dropped, _Mapping]]] = ..., retrieval_id: _Optional[str] = ..., took_ms: _Optional[float] = ..., notes: _Optional[_Iterable[str]] = ..., system: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[_query_pb2.Stage, _Mapping]]] = ..., query: _Optional[str] = ..., partial: _Optional[_Union[_common_pb2.Partial, _Mapping]] = ...) -> None: ...

class ChatMessage(_message.Message):
    __slots__ = ("role", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ...) -> None: ...

class ContextItem(_message.Message):
    __slots__ = ("n", "document", "title", "heading", "source", "span", "text", "score", "scores", "ids", "collection", "trust", "provenance")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    N_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    HEADING_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    n: int
    document: str
    title: str
    heading: _containers.RepeatedScalarFieldContainer[str]
    source: str
    span: Span
    text: str
    score: float
    scores: _containers.ScalarMap[str, float]
    ids: _containers.RepeatedScalarFieldContainer[str]
    collection: str
    trust: Trust
    provenance: Provenance
    def __init__(self, n: _Optional[int] = ..., document: _Optional[str] = ..., title: _Optional[str] = ..., heading: _Optional[_Iterable[str]] = ..., source: _Optional[str] = ..., span: _Optional[_Union[Span, _Mapping]] = ..., text: _Optional[str] = ..., score: _Optional[float] = ..., scores: _Optional[_Mapping[str, float]] = ..., ids: _Optional[_Iterable[str]] = ..., collection: _Optional[str] = ..., trust: _Optional[_Union[Trust, str]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class TokenUse(_message.Message):
    __slots__ = ("prompt", "context", "budget")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    prompt: int
    context: int
    budget: int
    def __init__(self, prompt: _Optional[int] = ..., context: _Optional[int] = ..., budget: _Optional[int] = ...) -> None: ...

class Dropped(_message.Message):
    __slots__ = ("id", "document", "reason", "collection")
    ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    document: str
    reason: str
    collection: str
    def __init__(self, id: _Optional[str] = ..., document: _Optional[str] = ..., reason: _Optional[str] = ..., collection: _Optional[str] = ...) -> None: ...

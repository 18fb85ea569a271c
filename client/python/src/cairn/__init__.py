"""Client of Cairn, a vector database for retrieval-augmented generation.

`Client` and `AsyncClient` have the same methods: `query`, `query_batch` and `enrich`, and `collections`, `points`,
`documents`, `operations`, `snapshots` with the rest. What is asked is built of the classes of `cairn.requests` (or of dicts with the
same names), what is answered is classes of `cairn.answers`, failures are classes of `cairn.errors`. All are here.
`cairn.langchain` and `cairn.llamaindex` are for those frameworks. `cairn.v1` are the generated messages.
"""

from ._aio.client import AsyncClient
from ._sync.client import Client
from .answers import (
    Answer,
    ChatMessage,
    Collection,
    ContextItem,
    DamagedSegment,
    DocumentPage,
    DocumentView,
    Dropped,
    Enriched,
    ExplainLeg,
    Hit,
    LegScore,
    Operation,
    Origin,
    Page,
    Partial,
    Put,
    PutError,
    PutResult,
    RecallEstimate,
    Restorable,
    Rows,
    Snapshot,
    SnapshotCollection,
    SparseWeights,
    Stage,
    StoredDocument,
    StoredPoint,
    TokenUse,
    Written,
)
from .errors import (
    CairnError,
    ConflictError,
    DeadlineError,
    DeniedError,
    ExhaustedError,
    InvalidError,
    NotFoundError,
    ServerError,
    UnavailableError,
    UnreachableError,
)
from .filters import Condition, Field, Filter, has_document, has_id
from .requests import (
    Cap,
    Chunking,
    Decay,
    Document,
    Embedder,
    EmbedInput,
    Faiss,
    Flat,
    Hnsw,
    Hybrid,
    Ivf,
    Leg,
    Mmr,
    NearDuplicates,
    Nearest,
    Point,
    Prefetch,
    Provenance,
    Query,
    Ranking,
    Rerank,
    Rrf,
    Schema,
    Sparse,
    SparseSpec,
    SparseVector,
    Text,
    TextField,
    Turn,
    VectorSpec,
    Weighted,
)
from .retry import Retry

__version__ = "0.1.0"

__all__ = [name for name in dir() if not name.startswith("_") and name[0].isupper()] + ["has_document", "has_id"]

from cairn.v1 import operations_pb2 as _operations_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateSnapshotRequest(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: str
    def __init__(self, snapshot: _Optional[str] = ...) -> None: ...

class ListSnapshotsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSnapshotsResponse(_message.Message):
    __slots__ = ("snapshots",)
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    snapshots: _containers.RepeatedCompositeFieldContainer[Snapshot]
    def __init__(self, snapshots: _Optional[_Iterable[_Union[Snapshot, _Mapping]]] = ...) -> None: ...

class GetSnapshotRequest(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: str
    def __init__(self, snapshot: _Optional[str] = ...) -> None: ...

class VerifySnapshotRequest(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: str
    def __init__(self, snapshot: _Optional[str] = ...) -> None: ...

class DeleteSnapshotRequest(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: str
    def __init__(self, snapshot: _Optional[str] = ...) -> None: ...

class RestoreSnapshotRequest(_message.Message):
    __slots__ = ("snapshot", "collection", "shards", "replace", "to_token", "to_time_ms")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    AS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    TO_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TO_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    snapshot: str
    collection: str
    shards: int
    replace: bool
    to_token: str
    to_time_ms: int
    def __init__(self, snapshot: _Optional[str] = ..., collection: _Optional[str] = ..., shards: _Optional[int] = ..., replace: bool = ..., to_token: _Optional[str] = ..., to_time_ms: _Optional[int] = ..., **kwargs) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("snapshot", "created_at_ms", "token", "cairn", "files", "bytes", "collections_total", "collections", "damaged", "restorable")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CAIRN_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    RESTORABLE_FIELD_NUMBER: _ClassVar[int]
    snapshot: str
    created_at_ms: int
    token: str
    cairn: str
    files: int
    bytes: int
    collections_total: int
    collections: _containers.RepeatedCompositeFieldContainer[SnapshotCollection]
    damaged: str
    restorable: Restorable
    def __init__(self, snapshot: _Optional[str] = ..., created_at_ms: _Optional[int] = ..., token: _Optional[str] = ..., cairn: _Optional[str] = ..., files: _Optional[int] = ..., bytes: _Optional[int] = ..., collections_total: _Optional[int] = ..., collections: _Optional[_Iterable[_Union[SnapshotCollection, _Mapping]]] = ..., damaged: _Optional[str] = ..., restorable: _Optional[_Union[Restorable, _Mapping]] = ...) -> None: ...

class Restorable(_message.Message):
    __slots__ = ("from_token", "from_ms", "to_token", "to_ms")
    FROM_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FROM_MS_FIELD_NUMBER: _ClassVar[int]
    TO_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TO_MS_FIELD_NUMBER: _ClassVar[int]
    from_token: str
    from_ms: int
    to_token: str
    to_ms: int
    def __init__(self, from_token: _Optional[str] = ..., from_ms: _Optional[int] = ..., to_token: _Optional[str] = ..., to_ms: _Optional[int] = ...) -> None: ...

class SnapshotCollection(_message.Message):
    __slots__ = ("collection", "points", "documents")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    points: int
    documents: int
    def __init__(self, collection: _Optional[str] = ..., points: _Optional[int] = ..., documents: _Optional[int] = ...) -> None: ...

"""Every method of the contract, once: its name in gRPC, its request in REST, and whether doing it twice is doing it once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RestRequest:
    """What is sent to a REST server."""

    verb: str
    path: str
    params: list[tuple[str, str]]
    #: None: no body.
    body: Any


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the contract."""

    #: `Service/Method`.
    name: str
    rest: Callable[[Json], RestRequest]
    #: What is one request in gRPC may be several in REST.
    parts: Callable[[Json], list[Json]] = field(default=lambda json: [json])


def _path(path: str, json: Json) -> str:
    # A restore names its collection in the body.
    parts = ("snapshot",) if path.startswith("/snapshots") else ("collection", "id")
    for part in parts:
        if f"{{{part}}}" in path:
            path = path.replace(f"{{{part}}}", quote(str(json.pop(part, "")), safe=""))
    return "/api/v1" + path


def _body(verb: str, path: str, whole: str | None = None) -> Callable[[Json], RestRequest]:
    """What is not in the path is the body; `whole` names a part that is all of it."""

    def make(json: Json) -> RestRequest:
        json = dict(json)
        target = _path(path, json)
        return RestRequest(verb, target, [], (json.get(whole) or {}) if whole else json)

    return make


def _params(verb: str, path: str, **names: str) -> Callable[[Json], RestRequest]:
    """What is not in the path are query parameters; `names` are those that are called something else in REST."""

    def make(json: Json) -> RestRequest:
        json = dict(json)
        target = _path(path, json)
        params = []
        for key, value in json.items():
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    params.append((names.get(key, key), str(one).lower() if isinstance(one, bool) else str(one)))
        return RestRequest(verb, target, params, None)

    return make


def _enrich(json: Json) -> RestRequest:
    one = "collection" in json
    return _body("POST", "/collections/{collection}/enrich" if one else "/enrich")(json)


#: Most bytes of ids in a URL: servers and proxies take some tens of kilobytes.
_URL_IDS_BYTES = 8 << 10


def _by_url(json: Json) -> list[Json]:
    """Ids that go into the URL, in as many requests as they need. Each repeats itself under an id of its own."""
    parts: list[list[str]] = []
    size = 0
    for one in json.get("ids", ()):
        bytes_ = len(quote(str(one), safe="")) + len("&id=")
        if not parts or size + bytes_ > _URL_IDS_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(one)
        size += bytes_
    if len(parts) < 2:
        return [json]
    # A hash, as an id has a bound; the same at each attempt, as the server does a request once.
    names = (hashlib.sha256(f"{json.get('request_id')} {n}".encode()).hexdigest()[:32] for n in range(len(parts)))
    return [{**json, "ids": ids, "request_id": name} for ids, name in zip(parts, names, strict=True)]


_C = "/collections/{collection}"

CREATE_COLLECTION = Method("Collections/Create", _body("PUT", _C, whole="schema"))
GET_COLLECTION = Method("Collections/Get", _params("GET", _C))
DELETE_COLLECTION = Method("Collections/Delete", _params("DELETE", _C))
LIST_COLLECTIONS = Method("Collections/List", _params("GET", "/collections"))
OPTIMIZE = Method("Collections/Optimize", _params("POST", _C + "/optimize"))

GET_OPERATION = Method("Operations/Get", _params("GET", "/operations/{id}"))
WATCH_OPERATION = Method("Operations/Watch", _params("GET", "/operations/{id}"))
LIST_OPERATIONS = Method("Operations/List", _params("GET", "/operations"))
CANCEL_OPERATION = Method("Operations/Cancel", _params("DELETE", "/operations/{id}"))

_S = "/snapshots/{snapshot}"

CREATE_SNAPSHOT = Method("Snapshots/Create", _body("POST", "/snapshots"))
LIST_SNAPSHOTS = Method("Snapshots/List", _params("GET", "/snapshots"))
GET_SNAPSHOT = Method("Snapshots/Get", _params("GET", _S))
VERIFY_SNAPSHOT = Method("Snapshots/Verify", _params("POST", _S + "/verify"))
RESTORE_SNAPSHOT = Method("Snapshots/Restore", _body("POST", "/restore"))
DELETE_SNAPSHOT = Method("Snapshots/Delete", _params("DELETE", _S))

UPSERT = Method("Points/Upsert", _body("POST", _C + "/points"))
UPSERT_STREAM = Method("Points/UpsertStream", _body("POST", _C + "/points"))
SET_PAYLOAD = Method("Points/SetPayload", _body("PATCH", _C + "/points"))
GET_POINTS = Method("Points/Get", _body("POST", _C + "/points/get"))
DELETE_POINTS = Method("Points/Delete", _body("POST", _C + "/points/delete"))
SCROLL = Method("Points/Scroll", _body("POST", _C + "/points/scroll"))
COUNT = Method("Points/Count", _body("POST", _C + "/points/count"))

QUERY = Method("Query/Run", _body("POST", _C + "/query"))
QUERY_BATCH = Method("Query/RunBatch", _body("POST", _C + "/query/batch"))

PUT_DOCUMENTS = Method("Documents/Put", _body("POST", _C + "/documents"))
GET_DOCUMENT = Method("Documents/Get", _params("GET", _C + "/documents"))
DELETE_DOCUMENTS = Method("Documents/Delete", _params("DELETE", _C + "/documents", ids="id"), parts=_by_url)
LIST_DOCUMENTS = Method("Documents/List", _params("GET", _C + "/documents/list"))
ENRICH = Method("Documents/Enrich", _enrich)

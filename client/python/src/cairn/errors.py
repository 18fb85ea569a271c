"""What can go wrong, told by what the caller should do about it.

Every failure of a call is a `CairnError`; its class says the kind, `code` is the stable identifier of docs/errors.md,
`pointer` the place in the request, `retryable` whether the same request may succeed later. Both transports raise the
same errors for the same reasons.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from .answers import Put, Written


class CairnError(Exception):
    """Why a call failed.

    ```python
    try:
        client.collections.get("no-such-collection")
    except cairn.NotFoundError as error:
        print(error.code)
    ```
    """

    #: Repeating the same request later may succeed.
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        code: str,
        pointer: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        #: What is wrong and what is allowed.
        self.message = message
        #: Stable snake_case identifier, the same in REST and gRPC. The client's own are `unreachable`, `deadline`,
        #: `bad_url`, `bad_request` and `bad_answer`.
        self.code = code
        #: JSON pointer to the offending part of the request, when there is one.
        self.pointer = pointer
        #: Seconds that the server asked to wait before trying again.
        self.retry_after = retry_after
        #: What a call that sends several requests had done before one of them failed. None if the call sends only one.
        self.partial: Put | Written | None = None

    def __str__(self) -> str:
        place = f" (at {self.pointer})" if self.pointer else ""
        return f"{self.code}: {self.message}{place}"

    def __reduce__(self) -> tuple[object, ...]:
        state = {"code": self.code, "pointer": self.pointer, "retry_after": self.retry_after}
        return (_rebuilt, (type(self), self.message, state), {"partial": self.partial})


def _rebuilt(kind: type[CairnError], message: str, state: dict[str, object]) -> CairnError:
    return kind(message, **state)  # type: ignore[arg-type]


class InvalidError(CairnError, ValueError):
    """The request is wrong: correct it, a retry will fail again."""


class NotFoundError(CairnError, LookupError):
    """The named thing does not exist."""


class ConflictError(CairnError):
    """The thing exists already, or its state forbids the request."""


class DeniedError(CairnError):
    """The caller is unknown or may not do this."""


class ExhaustedError(CairnError):
    """A bound of the server was reached, and the retries did not outlast it."""

    retryable = True


class DeadlineError(CairnError, TimeoutError):
    """Time ran out. A write may or may not have happened; repeating it with the same ids is safe."""


class UnavailableError(CairnError):
    """The server is starting, draining or refusing work, and the retries did not outlast it."""

    retryable = True


class UnreachableError(CairnError, ConnectionError):
    """Nothing that speaks Cairn's protocol answers there. A write may or may not have happened."""

    retryable = True


class ServerError(CairnError):
    """The server found its stored data damaged, has a bug, or sent what cannot be read."""


_BY_GRPC: dict[str, type[CairnError]] = {
    "INVALID_ARGUMENT": InvalidError,
    "OUT_OF_RANGE": InvalidError,
    "UNIMPLEMENTED": InvalidError,
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": ConflictError,
    "FAILED_PRECONDITION": ConflictError,
    "ABORTED": ConflictError,
    "UNAUTHENTICATED": DeniedError,
    "PERMISSION_DENIED": DeniedError,
    "RESOURCE_EXHAUSTED": ExhaustedError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "CANCELLED": DeadlineError,
    "UNAVAILABLE": UnavailableError,
}

_BY_HTTP: dict[int, type[CairnError]] = {
    401: DeniedError,
    403: DeniedError,
    404: NotFoundError,
    408: DeadlineError,
    409: ConflictError,
    412: ConflictError,
    429: ExhaustedError,
    499: DeadlineError,
    501: InvalidError,
    503: UnavailableError,
    504: DeadlineError,
}


def from_grpc(status: str, details: str, metadata: dict[str, str]) -> CairnError:
    """The error of a gRPC status; one without `cairn-code` was made by the transport below us."""
    code = metadata.get("cairn-code")
    if code is None:
        if status in ("DEADLINE_EXCEEDED", "CANCELLED"):
            return DeadlineError(details or "no answer within the time that was left", code="deadline")
        # A page that is not found is UNIMPLEMENTED to the library.
        if status in ("UNAVAILABLE", "UNKNOWN", "INTERNAL", "NOT_FOUND", "UNIMPLEMENTED"):
            return UnreachableError(details, code="unreachable")
        # A message above the bound of this client or of the library is no fault that waiting would mend.
        if status == "RESOURCE_EXHAUSTED":
            return ServerError(details, code="bad_answer")
    pointer = metadata.get("cairn-pointer")
    wait = metadata.get("cairn-retry-after-ms")
    return _BY_GRPC.get(status, ServerError)(
        details,
        code=code or status.lower(),
        pointer=None if pointer is None else unquote(pointer),
        retry_after=int(wait) / 1000 if wait and wait.isdigit() else None,
    )


def from_http(status: int, problem: dict[str, object]) -> CairnError:
    """The error of an HTTP answer; `problem` is its body (RFC 9457), empty if it was something else."""
    code, pointer, wait = problem.get("code"), problem.get("pointer"), problem.get("retry_after_ms")
    # Ours has a code. What a proxy does not find is no answer about a collection or a document.
    if status == 404 and not isinstance(code, str):
        return UnreachableError("HTTP status 404, and not of a Cairn server", code="unreachable")
    kind = _BY_HTTP.get(status, InvalidError if 400 <= status < 500 else ServerError)
    return kind(
        str(problem.get("detail") or f"HTTP status {status}"),
        code=code if isinstance(code, str) else f"http_{status}",
        pointer=pointer if isinstance(pointer, str) else None,
        retry_after=wait / 1000 if isinstance(wait, (int, float)) else None,
    )


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Goes on behind the block when there is no such collection. Whatever else is not found stays an error."""
    try:
        yield
    except NotFoundError as error:
        if error.code != "collection_not_found":
            raise

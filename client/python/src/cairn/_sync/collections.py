"""Collections, and the operations on them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from .._progress import bar
from .._wire import methods
from .._wire.methods import Json
from ..answers import Collection, Operation, Written, all_of, build
from ..errors import without_collection
from ..requests import Schema, plain
from .core import Core

#: How long `watch` and `wait` follow an operation if nothing is said, in seconds: long work is the reason for them.
WATCH_TIMEOUT = 3600.0


class Collections:
    """What points of one kind have in common."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def create(
        self, name: str, schema: Schema | Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> Collection:
        """Makes a collection; repeating it with an equal schema answers with the existing one. Without a schema it is
        made for documents: built-in embedder, full text.

        ```python
        >>> from cairn import Schema, VectorSpec
        >>> made = client.collections.create("points", Schema(vectors={"v": VectorSpec(dim=3)}))
        >>> made.name, made.points
        ('points', 0)

        ```
        """
        request = {"collection": name, "schema": plain(schema) or None}
        return _collection(self._core.call(methods.CREATE_COLLECTION, request, timeout))

    def get(self, name: str, *, timeout: float | None = None) -> Collection:
        """One collection and its state."""
        return _collection(self._core.call(methods.GET_COLLECTION, {"collection": name}, timeout))

    def exists(self, name: str, *, timeout: float | None = None) -> bool:
        """Whether there is a collection of this name."""
        with without_collection():
            self.get(name, timeout=timeout)
            return True
        return False

    def delete(self, name: str, *, missing_ok: bool = False, timeout: float | None = None) -> Written:
        """Removes a collection and everything in it."""
        request = {"collection": name, "request_id": uuid.uuid4().hex}
        with without_collection() if missing_ok else nullcontext():
            return build(Written, self._core.call(methods.DELETE_COLLECTION, request, timeout))
        return Written()

    def list(self, *, timeout: float | None = None) -> list[str]:
        """Names of all collections, in order."""
        return list((self._core.call(methods.LIST_COLLECTIONS, {}, timeout)).get("collections", ()))

    def optimize(self, name: str, *, timeout: float | None = None) -> Operation:
        """Seals what grows and merges segments. Answers at once with the operation to watch.

        ```python
        >>> operation = client.collections.optimize("notes")
        >>> (client.operations.wait(operation.id)).state
        'done'

        ```
        """
        return build(Operation, self._core.call(methods.OPTIMIZE, {"collection": name}, timeout))


def _collection(json: Json) -> Collection:
    # What a schema has none of is said in gRPC and left out in REST.
    json.get("schema", {}).setdefault("sparse", {})
    return build(Collection, json)


class Operations:
    """Work that outlives the request that asked for it."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def get(self, id: str, *, timeout: float | None = None) -> Operation:
        """One operation."""
        return build(Operation, self._core.call(methods.GET_OPERATION, {"id": id}, timeout))

    def list(self, collection: str | None = None, *, timeout: float | None = None) -> list[Operation]:
        """Those that run and the last 1,000 that ended, newest first."""
        request = {} if collection is None else {"collection": collection}
        answer = self._core.call(methods.LIST_OPERATIONS, request, timeout)
        return all_of(Operation, answer.get("operations", ()))

    def cancel(self, id: str, *, timeout: float | None = None) -> Operation:
        """Asks it to stop; answers with what it is then. One that has ended stays as it is."""
        return build(Operation, self._core.call(methods.CANCEL_OPERATION, {"id": id}, timeout))

    def watch(self, id: str, *, timeout: float = WATCH_TIMEOUT) -> Iterator[Operation]:
        """The operation now, at every change, and when it has ended."""
        for one in self._core.watch(methods.WATCH_OPERATION, {"id": id}, timeout):
            yield build(Operation, one)

    def wait(self, id: str, *, progress: bool = False, timeout: float = WATCH_TIMEOUT) -> Operation:
        """The operation when it has ended, also when it failed: see its `state`."""
        last: Operation | None = None
        with bar(progress, unit="%", total=100) as shown:
            for last in self.watch(id, timeout=timeout):
                shown.to(100 * last.progress, last.message)
        if last is None:
            last = self.get(id)
        return last

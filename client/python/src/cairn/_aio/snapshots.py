"""Snapshots: one moment of the whole database, kept in a store, from which it can be brought back."""

from __future__ import annotations

from .._wire import methods
from ..answers import Operation, Snapshot, all_of, build
from .core import AsyncCore


class AsyncSnapshots:
    """One moment of the whole database, kept in a store."""

    def __init__(self, core: AsyncCore) -> None:
        self._core = core

    async def create(self, name: str | None = None, *, timeout: float | None = None) -> Operation:
        """Makes a snapshot of this moment; without a name it gets the date and time. Answers at once with the operation
        to wait for, which names the snapshot.

        ```python
        >>> operation = await client.snapshots.create()
        >>> (await client.operations.wait(operation.id)).state
        'done'
        >>> operation.snapshot in [s.snapshot for s in await client.snapshots.list()]
        True

        ```
        """
        request = {} if name is None else {"snapshot": name}
        return build(Operation, await self._core.call(methods.CREATE_SNAPSHOT, request, timeout))

    async def list(self, *, timeout: float | None = None) -> list[Snapshot]:
        """All snapshots of the server's store, the newest first, without their collections."""
        return all_of(Snapshot, (await self._core.call(methods.LIST_SNAPSHOTS, {}, timeout)).get("snapshots", ()))

    async def get(self, name: str, *, timeout: float | None = None) -> Snapshot:
        """One snapshot."""
        return build(Snapshot, await self._core.call(methods.GET_SNAPSHOT, {"snapshot": name}, timeout))

    async def verify(self, name: str, *, timeout: float | None = None) -> Operation:
        """Reads everything that a snapshot names and compares it with what it should be. Answers at once with the
        operation to wait for."""
        return build(Operation, await self._core.call(methods.VERIFY_SNAPSHOT, {"snapshot": name}, timeout))

    async def restore(
        self,
        name: str | None = None,
        *,
        to_token: str | None = None,
        to_time_ms: int | None = None,
        collection: str | None = None,
        rename: str | None = None,
        shards: int | None = None,
        replace: bool = False,
        timeout: float | None = None,
    ) -> Operation:
        """Brings one collection back, or all: as the snapshot holds them, or as they were right after a write (`to_token`), or
        at a time in milliseconds since the Unix epoch (`to_time_ms`; everything that was answered by then). With such a
        moment no snapshot need be named: the best one is found. `rename` and `shards` are for one: the name and the shards it gets. With
        `replace` a collection that has the name is replaced. Answers at once with the operation to wait for."""
        request = {
            "snapshot": name,
            "to_token": to_token,
            "to_time_ms": to_time_ms,
            "collection": collection,
            "as": rename,
            "shards": shards,
            "replace": replace,
        }
        said = {key: value for key, value in request.items() if value is not None}
        return build(Operation, await self._core.call(methods.RESTORE_SNAPSHOT, said, timeout))

    async def delete(self, name: str, *, timeout: float | None = None) -> Operation:
        """Removes a snapshot and what no other needs. Answers at once with the operation to wait for."""
        return build(Operation, await self._core.call(methods.DELETE_SNAPSHOT, {"snapshot": name}, timeout))

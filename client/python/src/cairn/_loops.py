"""One asynchronous client for each event loop.

Frameworks call an object's synchronous and asynchronous methods as they like, also from one loop after another, and a
gRPC channel belongs to the loop that it was made in.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable

from ._aio.client import AsyncClient


class PerLoop:
    """Makes a client when a loop asks for the first time; it goes with its loop."""

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self._make = make
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClient] = weakref.WeakKeyDictionary()

    def client(self) -> AsyncClient:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._clients.get(loop)
        if found is None:
            found = self._clients[loop] = self._make()
        return found

    async def close(self) -> None:
        """Closes the running loop's client."""
        found = self._clients.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found.close()

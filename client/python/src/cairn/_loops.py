"""One asynchronous client for each event loop.

Frameworks call an object's synchronous and asynchronous methods as they like, also from one loop after another, and a
gRPC channel belongs to the loop that it was made in.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from ._aio.client import AsyncClient


class PerLoop:
    """Makes a client when a loop asks for the first time. It is let go of when another loop asks and its own has ended: a
    channel holds its loop, so that neither would go by itself, and `asyncio.run` makes a loop each time.
    """

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self._make = make
        self._clients: dict[asyncio.AbstractEventLoop, AsyncClient] = {}
        # Loops run in threads of their own.
        self._lock = threading.Lock()

    def client(self) -> AsyncClient:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._clients.get(loop)
            if found is None:
                for ended in [one for one in self._clients if one.is_closed()]:
                    del self._clients[ended]
                found = self._clients[loop] = self._make()
        return found

    async def close(self) -> None:
        """Closes the running loop's client."""
        with self._lock:
            found = self._clients.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found.close()

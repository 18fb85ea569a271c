"""A real server for all tests, and one client of each kind: what one can do, all can, in the same words."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cairn import AsyncClient, Client

ROOT = Path(__file__).resolve().parents[3]
#: The four ways to a server.
WAYS = ["grpc", "rest", "grpc-async", "rest-async"]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a `cairn` process with an empty data directory on free ports of loopback."""
    # To the server, CAIRN_... variables are configuration.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CAIRN_")}
    with tempfile.TemporaryDirectory() as data:
        listen = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data-dir", f"{data}/db"]
        with open(f"{data}/log", "w+") as log:
            process = subprocess.Popen(
                [os.environ["CAIRN_BIN"], "serve", *listen], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
            try:
                # It says one line when it answers requests; if it ends first, the line is empty.
                assert process.stdout is not None
                line = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:\d+", line)
                log.seek(0)
                assert found, f"the server did not start: {line!r}\n{log.read()}"
                yield f"http://{found[0]}"
            finally:
                process.terminate()
                process.wait(timeout=60)


class Blocking:
    """An `AsyncClient` that is called like a `Client`: its coroutines run on a loop of another thread."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._inner, self._loop = inner, loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return Blocking(found, self._loop)
        return lambda *args, **kwargs: self._run(found(*args, **kwargs))

    def _run(self, made: Any) -> Any:
        if inspect.isasyncgen(made):

            async def gather() -> list[Any]:
                return [one async for one in made]

            return iter(self._run(gather()))
        return asyncio.run_coroutine_threadsafe(made, self._loop).result(60) if inspect.isawaitable(made) else made


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="session")
def connect(server: str, loop_thread: asyncio.AbstractEventLoop) -> Iterator[Callable[..., Any]]:
    """Makes a client of a way; all are closed at the end."""
    opened: list[Any] = []

    def make(way: str, url: str = server, **given: Any) -> Any:
        transport = way.removesuffix("-async")
        if way.endswith("-async"):
            client: Any = Blocking(AsyncClient(url, transport=transport, **given), loop_thread)  # type: ignore[arg-type]
        else:
            client = Client(url, transport=transport, **given)  # type: ignore[arg-type]
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.close()


@pytest.fixture(params=WAYS)
def client(request: pytest.FixtureRequest, connect: Callable[..., Any]) -> Any:
    """One client of each kind."""
    return connect(request.param)


@pytest.fixture
def nothing_there() -> Iterator[str]:
    """The URL of something that answers every request as a proxy does that knows no such page."""

    class Handler(BaseHTTPRequestHandler):
        def do_any(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_error(404)

        do_GET = do_POST = do_PUT = do_DELETE = do_any

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def name(server: str) -> Iterator[str]:
    """A name for a collection; what is made under it (or under `name` and a suffix) is removed."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    yield name
    with Client(server) as client:
        for one in client.collections.list():
            if one.startswith(name):
                client.collections.delete(one)

"""Retries, deadlines and failures of the network, against servers that follow a script."""

from __future__ import annotations

import json
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cairn
import grpc
import pytest
from cairn import Field, Retry
from cairn.errors import from_grpc, from_http
from cairn.v1 import collections_pb2, common_pb2

#: What a server does with a request: a code with its status in both protocols, `None` to answer, `"hang"` to be silent.
STATUS = {
    "overloaded": (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
    "not_caught_up": (503, grpc.StatusCode.UNAVAILABLE),
    "data_damaged": (500, grpc.StatusCode.DATA_LOSS),
    "deadline_exceeded": (504, grpc.StatusCode.DEADLINE_EXCEEDED),
}
#: What a proxy answers with a page.
PAGES = {"html": 502, "no such page": 404}
WAIT_MS = 30


class Script:
    """What is done with each request in turn (the last one for ever), and when requests came."""

    def __init__(self) -> None:
        self.steps: list[str | None] = [None]
        self.wait_ms = WAIT_MS
        self.times: list[float] = []
        self.ids: list[str] = []
        self.released = threading.Event()

    def next(self) -> str | None:
        self.times.append(time.monotonic())
        step = self.steps[min(len(self.times), len(self.steps)) - 1]
        if step == "hang":
            self.released.wait(20)
        return step


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.released.set()


@pytest.fixture
def rest_url(script: Script) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if body:
                script.ids.append(json.loads(body).get("request_id", ""))
            step = script.next()
            if step == "drop":
                self.connection.close()
                self.close_connection = True
                return
            status, answer = 200, {"collections": ["it"], "token": "t", "changed": 1}
            if step in STATUS:
                status, answer = STATUS[step][0], {"code": step, "detail": "not now", "retry_after_ms": script.wait_ms}
            status = PAGES.get(step or "", status)
            data = json.dumps(answer).encode() if step not in PAGES else b"<html>"
            try:
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # The caller went away, which is what some tests are about.

        do_GET = do_POST = do_DELETE = do_any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    script.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def grpc_url(script: Script) -> Iterator[str]:
    class Any_(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            def answer(data: bytes, context: Any) -> bytes:
                if details.method.endswith("Delete"):
                    script.ids.append("")
                step = script.next()
                if step in STATUS:
                    wait = (("cairn-code", step), ("cairn-retry-after-ms", str(script.wait_ms)))
                    context.set_trailing_metadata(wait)
                    context.abort(STATUS[step][1], "not now")
                if step in ("drop", "html"):
                    context.abort(grpc.StatusCode.UNAVAILABLE, "a proxy on the way")
                if step == "no such page":
                    context.abort(grpc.StatusCode.UNIMPLEMENTED, "HTTP status 404")
                if details.method.endswith("List"):
                    return collections_pb2.ListCollectionsResponse(collections=["it"]).SerializeToString()
                return common_pb2.WriteResponse(token="t", changed=1).SerializeToString()

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(Any_(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    script.released.set()
    server.stop(None).wait()


@pytest.fixture(params=["grpc", "rest", "grpc-async", "rest-async"])
def scripted(request: pytest.FixtureRequest, connect: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a client of a scripted server."""
    url = request.getfixturevalue("rest_url" if request.param.startswith("rest") else "grpc_url")
    return lambda **given: connect(request.param, url, **{"retry": Retry(first_wait=0.001), **given})


@pytest.mark.parametrize("refusal", ["overloaded", "not_caught_up", "drop"])
def test_what_is_refused_for_now_is_tried_again(scripted: Any, script: Script, refusal: str) -> None:
    script.steps = [refusal, refusal, None]
    assert scripted().collections.list() == ["it"]
    assert len(script.times) == 3
    if refusal in STATUS:
        assert all(b - a >= WAIT_MS / 1000 for a, b in zip(script.times, script.times[1:], strict=False))


def test_retries_end_and_the_last_error_is_raised(scripted: Any, script: Script) -> None:
    script.steps = ["overloaded"]
    with pytest.raises(cairn.ExhaustedError) as raised:
        scripted(retry=Retry(retries=2, first_wait=0.001)).collections.list()
    assert (raised.value.code, raised.value.retry_after, len(script.times)) == ("overloaded", WAIT_MS / 1000, 3)


def test_what_waiting_cannot_mend_is_not_tried_again(scripted: Any, script: Script) -> None:
    script.steps = ["data_damaged"]
    with pytest.raises(cairn.ServerError) as raised:
        scripted().collections.list()
    assert raised.value.code == "data_damaged" and not raised.value.retryable and len(script.times) == 1


def test_a_wait_beyond_the_deadline_is_not_begun(scripted: Any, script: Script) -> None:
    # The server asks for a longer wait than the call has, and the call has long enough for a slow machine's first answer.
    script.steps, script.wait_ms = ["overloaded"], 60_000
    with pytest.raises(cairn.ExhaustedError):
        scripted(timeout=20).collections.list()
    assert len(script.times) == 1


def test_silence_ends_at_the_deadline(scripted: Any, script: Script) -> None:
    script.steps = ["hang"]
    with pytest.raises(cairn.DeadlineError):
        scripted().collections.list(timeout=0.2)


def test_a_delete_by_filter_is_repeated_even_if_its_answer_was_lost(scripted: Any, script: Script) -> None:
    script.steps = ["overloaded", "drop", None]
    assert scripted().points.delete("c", filter=Field("a") == 1).changed == 1
    assert len(script.times) == 3


def test_all_attempts_of_a_write_carry_one_request_id(connect: Any, rest_url: str, script: Script) -> None:
    client = connect("rest", rest_url, retry=Retry(first_wait=0.001))
    script.steps = ["drop", "not_caught_up", None]
    client.points.upsert("c", {"id": "a"})
    assert len(script.ids) == 3 and len(set(script.ids)) == 1 and len(script.ids[0]) == 32


@pytest.mark.parametrize("way", ["grpc", "rest", "grpc-async", "rest-async"])
def test_nobody_there_is_unreachable(connect: Any, way: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound and not listening: refused.
        client = connect(way, f"http://127.0.0.1:{taken.getsockname()[1]}", retry=Retry(retries=1, first_wait=0.001))
        with pytest.raises(cairn.UnreachableError) as raised:
            client.collections.list()
    assert raised.value.retryable and isinstance(raised.value, ConnectionError)


def test_something_else_than_a_server_is_no_answer(connect: Any, rest_url: str, script: Script) -> None:
    script.steps = ["html"]
    with pytest.raises(cairn.ServerError, match="502"):
        connect("rest", rest_url).collections.list()


def test_what_a_proxy_does_not_find_says_nothing_about_a_collection(scripted: Any, script: Script) -> None:
    script.steps = ["no such page"]
    client = scripted(retry=Retry(retries=1, first_wait=0.001))
    for ask in (client.collections.exists, lambda name: client.collections.delete(name, missing_ok=True)):
        with pytest.raises(cairn.UnreachableError) as raised:
            ask("it")
        assert raised.value.code == "unreachable"
    assert len(script.times) == 4


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "http://", "://", "http://host:99999", "http://host/path", "http://me@host", "http://host?x=1"]
)
def test_a_wrong_url_is_said_at_once(url: str) -> None:
    with pytest.raises(cairn.InvalidError) as raised:
        cairn.Client(url)
    assert raised.value.code == "bad_url"


def test_waits_double_up_to_their_bound() -> None:
    retry = Retry(retries=99, first_wait=0.05, wait_max=1.0)
    assert [retry.bound(n) for n in range(1, 8)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert retry.bound(10_000) == 1.0
    hint = cairn.UnavailableError("x", code="x", retry_after=3.0)
    assert retry.wait(hint, 1, 9.0) == 3.0 and retry.wait(hint, 1, 2.0) is None
    assert all(0 <= (retry.wait(cairn.UnavailableError("x", code="x"), 3, 9) or 0) <= 0.2 for _ in range(100))


@pytest.mark.parametrize(
    ("status", "http", "kind"),
    [
        ("INVALID_ARGUMENT", 400, cairn.InvalidError),
        ("OUT_OF_RANGE", 413, cairn.InvalidError),
        ("NOT_FOUND", 404, cairn.NotFoundError),
        ("ALREADY_EXISTS", 409, cairn.ConflictError),
        ("PERMISSION_DENIED", 403, cairn.DeniedError),
        ("RESOURCE_EXHAUSTED", 429, cairn.ExhaustedError),
        ("DEADLINE_EXCEEDED", 504, cairn.DeadlineError),
        ("CANCELLED", 499, cairn.DeadlineError),
        ("UNAVAILABLE", 503, cairn.UnavailableError),
        ("DATA_LOSS", 500, cairn.ServerError),
        ("INTERNAL", 500, cairn.ServerError),
    ],
)
def test_both_transports_tell_the_same_kinds(status: str, http: int, kind: type) -> None:
    over_grpc = from_grpc(status, "why", {"cairn-code": "c", "cairn-pointer": "/gr%C3%B6%C3%9Fe", "cairn-retry-after-ms": "1500"})
    over_rest = from_http(http, {"code": "c", "detail": "why", "pointer": "/größe", "retry_after_ms": 1500})
    for error in (over_grpc, over_rest, pickle.loads(pickle.dumps(over_grpc))):
        assert type(error) is kind
        assert (error.code, error.message, error.pointer, error.retry_after) == ("c", "why", "/größe", 1.5)

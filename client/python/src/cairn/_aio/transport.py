"""How a call reaches a server: over gRPC or over REST, with the same answers and the same errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio
import httpx
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from .._wire import proto
from .._wire.methods import Json, Method
from ..errors import DeadlineError, InvalidError, ServerError, UnreachableError, from_grpc, from_http
from ..requests import scalar
from ..v1 import collections_pb2, documents_pb2, operations_pb2, points_pb2, query_pb2, snapshots_pb2

_FILES = (collections_pb2, documents_pb2, operations_pb2, points_pb2, query_pb2, snapshots_pb2)
_METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}/{method.name}": method
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}

#: Answers are bounded by the server, which knows better than a default of 4 MiB here.
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]

#: Given to the server's deadline, so that its answer (which says more) is there before ours.
_GRACE = 0.25

#: How long one question of `watch` over REST waits for the end, in milliseconds: it is how often progress is seen.
_WATCH_WAIT_MS = 250


class AsyncTransport(Protocol):
    """One attempt of a call; retries are the caller's."""

    async def call(self, method: Method, request: Json, timeout: float) -> Json:
        """One request, one answer."""

    async def send_all(self, method: Method, requests: Sequence[Json], timeout: float) -> Json:
        """Requests one after the other on one stream (or one after the other), and the answer to all."""

    def watch(self, method: Method, request: Json, timeout: float) -> AsyncIterator[Json]:
        """One request, answers until the end."""

    async def close(self) -> None:
        """Lets go of connections."""


class AsyncGrpcTransport:
    """gRPC: one channel, made at the first call."""

    def __init__(self, target: str, *, secure: bool, headers: Mapping[str, str]) -> None:
        self._target, self._secure = target, secure
        self._metadata = [(k.lower(), v) for k, v in headers.items()]
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Any] = {}

    async def call(self, method: Method, request: Json, timeout: float) -> Json:
        stub, message = self._stub(method), self._message(method, request)
        try:
            answer = await stub(message, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as e:
            raise _grpc_error(e) from None
        return proto.read(answer)

    async def send_all(self, method: Method, requests: Sequence[Json], timeout: float) -> Json:
        messages = [self._message(method, r) for r in requests]
        try:
            answer = await self._stub(method)(iter(messages), timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as e:
            raise _grpc_error(e) from None
        return proto.read(answer)

    async def watch(self, method: Method, request: Json, timeout: float) -> AsyncIterator[Json]:
        call = self._stub(method)(self._message(method, request), timeout=timeout, metadata=self._metadata)
        try:
            async for answer in call:
                yield proto.read(answer)
        except grpc.RpcError as e:
            raise _grpc_error(e) from None
        finally:
            call.cancel()

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        self._stubs.clear()
        if channel is not None:
            await channel.close()

    def _message(self, method: Method, request: Json) -> Any:
        message = GetMessageClass(_METHODS[method.name].input_type)()
        proto.fill(message, request)
        return message

    def _stub(self, method: Method) -> Any:
        stub = self._stubs.get(method.name)
        if stub is None:
            channel = self._connected()
            about = _METHODS[method.name]
            kinds = {
                (False, False): channel.unary_unary,
                (True, False): channel.stream_unary,
                (False, True): channel.unary_stream,
            }
            stub = self._stubs[method.name] = kinds[about.client_streaming, about.server_streaming](
                f"/cairn.v1.{method.name}",
                request_serializer=GetMessageClass(about.input_type).SerializeToString,
                response_deserializer=GetMessageClass(about.output_type).FromString,
            )
        return stub

    def _connected(self) -> grpc.aio.Channel:
        if self._channel is None:
            if self._secure:
                credentials = grpc.ssl_channel_credentials()
                self._channel = grpc.aio.secure_channel(self._target, credentials, options=_OPTIONS)
            else:
                self._channel = grpc.aio.insecure_channel(self._target, options=_OPTIONS)
        return self._channel


def _grpc_error(error: Any) -> Exception:
    metadata = {k: v for k, v in (error.trailing_metadata() or ()) if isinstance(v, str)}
    return from_grpc(error.code().name, error.details() or "", metadata)


class AsyncRestTransport:
    """REST: one pool of connections."""

    def __init__(self, url: str, *, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, dict(headers)
        self._http: httpx.AsyncClient | None = None

    async def call(self, method: Method, request: Json, timeout: float) -> Json:
        parts = method.parts(request)
        if len(parts) > 1:
            return await self.send_all(method, parts, timeout)
        rest = method.rest(request)
        return await self._send(rest.verb, rest.path, rest.params, rest.body, timeout)

    async def send_all(self, method: Method, requests: Sequence[Json], timeout: float) -> Json:
        answer: Json = {}
        changed = 0
        deadline = _now() + timeout
        for request in requests:
            answer = await self.call(method, request, max(deadline - _now(), 0.001))
            changed += answer.get("changed", 0)
        return {**answer, "changed": changed}

    async def watch(self, method: Method, request: Json, timeout: float) -> AsyncIterator[Json]:
        # REST has no stream: it is asked again and again, each time until something ends or a moment has passed.
        rest = method.rest(request)
        loop_end = _now() + timeout
        last: Json | None = None
        while True:
            left = loop_end - _now()
            if left <= 0:
                raise DeadlineError(f"the operation has not ended within {timeout:g} s", code="deadline")
            wait = [] if last is None else [("wait_ms", str(min(_WATCH_WAIT_MS, int(left * 1000))))]
            answer = await self._send(rest.verb, rest.path, [*rest.params, *wait], None, left)
            if answer != last:
                last = answer
                yield answer
            if answer.get("state") != "running":
                return

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def _send(
        self, verb: str, path: str, params: Sequence[tuple[str, Any]], body: Any, timeout: float
    ) -> Json:
        headers = {"cairn-timeout-ms": str(max(1, int(timeout * 1000)))}
        content: bytes | None = None
        if body is not None:
            content = _json_bytes(body)
            headers["content-type"] = "application/json"
        if self._http is None:
            # No proxies or settings of the environment: where a database is said to be is where it is.
            self._http = httpx.AsyncClient(base_url=self._url, headers=self._headers, trust_env=False)
        try:
            answer = await self._http.request(
                verb, path, params=list(params) or None, content=content, headers=headers, timeout=timeout + _GRACE
            )
        except httpx.TimeoutException as e:
            raise DeadlineError(f"no answer within {timeout:g} s ({type(e).__name__})", code="deadline") from None
        except httpx.TransportError as e:
            raise UnreachableError(f"{self._url}: {e}", code="unreachable") from None
        if answer.is_success:
            return _json_object(answer)
        raise from_http(answer.status_code, _problem(answer))


def _json_bytes(body: Any) -> bytes:
    try:
        return _json_text(body).encode()
    except (TypeError, ValueError, UnicodeError) as e:
        why = e.message if isinstance(e, InvalidError) else f"this is no JSON: {e}"
        raise InvalidError(why, code="bad_request", pointer=_no_json(body)) from None


def _json_text(value: Any) -> str:
    return json.dumps(value, default=scalar, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _no_json(body: Any) -> str | None:
    """Pointer to the first item of a list that is no JSON."""
    lists = [(name, items) for name, items in body.items() if isinstance(items, list)] if isinstance(body, dict) else []
    for place, item in ((f"/{name}/{i}", item) for name, items in lists for i, item in enumerate(items)):
        try:
            _json_text(item).encode()
        except (TypeError, ValueError, UnicodeError):
            return place
    return None


def _json_object(answer: httpx.Response) -> Json:
    try:
        found = answer.json()
    except ValueError as e:
        raise ServerError(f"the answer is no JSON: {e}", code="bad_answer") from None
    if not isinstance(found, dict):
        raise ServerError("the answer is no JSON object", code="bad_answer")
    return found


def _problem(answer: httpx.Response) -> Json:
    try:
        found = answer.json()
    except ValueError:
        found = None
    problem = found if isinstance(found, dict) else {}
    # What stands between us and the server says it in a header only.
    if "retry_after_ms" not in problem and (seconds := answer.headers.get("retry-after", "")).isdecimal():
        problem["retry_after_ms"] = 1000 * int(seconds)
    return problem


def _now() -> float:
    return asyncio.get_running_loop().time()

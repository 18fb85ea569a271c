"""One call with its deadline and its repetitions; what all parts of the client share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from .._wire.methods import Json, Method
from ..errors import CairnError
from ..retry import Retry
from .transport import Transport, _now


class Core:
    """Runs calls until they succeed, fail for good, or the time is over."""

    def __init__(self, transport: Transport, timeout: float, retry: Retry) -> None:
        self.transport, self.timeout, self.retry = transport, timeout, retry

    def call(self, method: Method, request: Json, timeout: float | None = None) -> Json:
        """One request, one answer."""
        deadline, attempt = _now() + (self.timeout if timeout is None else timeout), 0
        while True:
            try:
                return self.transport.call(method, request, max(deadline - _now(), 0.001))
            except CairnError as error:
                attempt += 1
                self._wait(error, attempt, deadline)

    def send_all(self, method: Method, requests: Sequence[Json], timeout: float | None = None) -> Json:
        """Requests that may all be repeated when one of them fails for now."""
        deadline, attempt = _now() + (self.timeout if timeout is None else timeout), 0
        while True:
            try:
                return self.transport.send_all(method, requests, max(deadline - _now(), 0.001))
            except CairnError as error:
                attempt += 1
                self._wait(error, attempt, deadline)

    def watch(self, method: Method, request: Json, timeout: float) -> Iterator[Json]:
        """One request, answers until the end; begins anew when the connection breaks."""
        deadline, attempt = _now() + timeout, 0
        while True:
            try:
                for answer in self.transport.watch(method, request, max(deadline - _now(), 0.001)):
                    attempt = 0
                    yield answer
                return
            except CairnError as error:
                attempt += 1
                self._wait(error, attempt, deadline)

    def _wait(self, error: CairnError, attempt: int, deadline: float) -> None:
        wait = self.retry.wait(error, attempt, deadline - _now())
        if wait is None:
            raise error
        time.sleep(wait)

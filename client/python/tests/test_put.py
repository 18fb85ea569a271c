"""What `put` does about documents that it cannot put, against a server that fails by what is in them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cairn
import pytest
from cairn import Retry


class Failing:
    """A server of documents. Their texts say what is wrong: `broken` and `bad answer` are failures with a place, `wrong` is
    refused, `large` and `slow` are one unit of what a request may have of it, and one that is `larger` or `slower` is too
    much alone.
    """

    def __init__(self) -> None:
        self.most = {"large": 2, "slow": 2}
        self.requests: list[list[str]] = []
        #: What is stored, by request id and place, as the server keeps it.
        self.done: dict[tuple[str, int], str] = {}
        self.stored: list[str] = []

    def put(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        documents = [(d["id"], d["text"]) for d in request["documents"]]
        self.requests.append([id for id, _ in documents])
        texts = [text for _, text in documents]
        if texts.count("large") > self.most["large"] or "larger" in texts:
            return 413, {"code": "body_too_large", "detail": "a body is at most so many bytes"}
        if "wrong" in texts:
            return 400, {"code": "bad_document", "detail": "it", "pointer": f"/documents/{texts.index('wrong')}"}
        results, slow = [], 0
        for i, (id, text) in enumerate(documents):
            if text in ("broken", "bad answer"):
                code = {"broken": "internal", "bad answer": "embedder_bad_answer"}[text]
                return 500 if text == "broken" else 502, {"code": code, "detail": "it", "pointer": f"/documents/{i}"}
            replayed = (request["request_id"], i) in self.done
            slow += 0 if replayed else {"slow": 1, "slower": 99}.get(text, 0)
            if slow > self.most["slow"]:
                return 504, {"code": "deadline_exceeded", "detail": "time is over", "pointer": f"/documents/{i}"}
            if not replayed:
                self.done[request["request_id"], i] = id
                self.stored.append(id)
            results.append({"id": id, "chunks": 1, "embedded": 1, "unchanged": False, "replayed": replayed})
        return 200, {"results": results, "token": f"t{len(self.stored)}"}


@pytest.fixture
def failing() -> Iterator[tuple[Failing, str]]:
    failing = Failing()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, answer = failing.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield failing, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["rest", "rest-async"])
def put(request: pytest.FixtureRequest, connect: Callable[..., Any], failing: tuple[Failing, str]) -> Callable[..., cairn.Put]:
    """Puts documents with these texts, named by their places."""
    client = connect(request.param, failing[1], retry=Retry(retries=0))

    def put(*texts: str, **given: Any) -> cairn.Put:
        documents = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
        return client.documents.put("c", documents, **{"on_error": "collect", **given})  # type: ignore[no-any-return]

    return put


def told(put: cairn.Put) -> tuple[list[str], dict[str, str]]:
    return [r.id for r in put.results], {e.id: e.error.code for e in put.errors}  # type: ignore[attr-defined]


def test_documents_that_the_server_fails_at_are_collected(put: Any) -> None:
    assert told(put("a", "broken", "b", "bad answer", "broken", "c")) == (
        ["0", "2", "5"],
        {"1": "internal", "3": "embedder_bad_answer", "4": "internal"},
    )


def test_what_is_too_large_together_is_sent_in_halves(put: Any, failing: tuple[Failing, str]) -> None:
    assert told(put("large", "large", "larger", "large", "a")) == (["0", "1", "3", "4"], {"2": "body_too_large"})
    assert failing[0].requests[0] == ["0", "1", "2", "3", "4"]


def test_what_takes_too_long_together_is_sent_in_halves(put: Any, failing: tuple[Failing, str]) -> None:
    done = put("slow", "slow", "slow", "slow", "slow", "a")
    assert told(done) == ([str(i) for i in range(6)], {})
    # The first half is the same request: what it had stored is answered as it was, and only the rest takes time.
    assert [r.replayed for r in done.results[:3]] == [True, True, False]
    assert failing[0].requests == [["0", "1", "2", "3", "4", "5"], ["0", "1", "2"], ["3", "4", "5"]]
    assert failing[0].stored == ["0", "1", "2", "3", "4", "5"] and done.token == "t6"


def test_what_takes_too_long_alone_is_collected_and_twice_in_a_row_is_the_end(put: Any) -> None:
    assert told(put("a", "slower", "b", "slower")) == (["0", "2"], {"1": "deadline_exceeded", "3": "deadline_exceeded"})
    with pytest.raises(cairn.DeadlineError) as raised:
        put("a", "slower", "slower", "b")
    assert told(raised.value.partial) == (["0"], {"1": "deadline_exceeded"})


def test_what_is_refused_between_two_that_take_too_long_ends_the_row(put: Any) -> None:
    codes = {"0": "deadline_exceeded", "1": "bad_document", "2": "deadline_exceeded"}
    assert told(put("slower", "wrong", "slower", "a", batch=1)) == (["3"], codes)


def test_a_server_that_never_answers_is_asked_eight_times(put: Any, failing: tuple[Failing, str]) -> None:
    with pytest.raises(cairn.DeadlineError):
        put(*["slower"] * 64)
    assert [len(ids) for ids in failing[0].requests] == [64, 32, 16, 8, 4, 2, 1, 1]


@pytest.mark.parametrize("batch", [64, 3])
def test_a_server_that_fails_at_everything_is_the_end(put: Any, failing: tuple[Failing, str], batch: int) -> None:
    with pytest.raises(cairn.ServerError) as raised:
        put(*["a"], *["broken"] * 50, batch=batch)
    # One, then what was before it, then ten in a row.
    assert told(raised.value.partial) == (["0"], {str(i): "internal" for i in range(1, 11)})
    assert len(failing[0].requests) == 12


@pytest.mark.parametrize("text", ["broken", "larger", "slower"])
def test_without_collecting_the_first_failure_is_the_end(put: Any, failing: tuple[Failing, str], text: str) -> None:
    with pytest.raises(cairn.CairnError):
        put("a", text, "b", on_error="raise")
    assert len(failing[0].requests) == 1

"""What is generated is current, what is written is typed, what is documented runs, and the wheel has it all."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import os
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import cairn
import pytest
from cairn import Client, Schema, VectorSpec

HERE = Path(__file__).resolve().parents[1]


def test_generated_files_are_current() -> None:
    """`python scripts/generate.py` makes them; the folder is compared, and the wheel was built of it."""
    assert runpy.run_path(str(HERE / "scripts" / "generate.py"))["stale"]() == []


def test_the_installed_wheel_is_what_is_tested() -> None:
    installed = Path(cairn.__file__).parent
    assert "site-packages" in installed.parts
    source = HERE / "src" / "cairn"
    names = {p.relative_to(source) for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert Path("py.typed") in names and names <= {p.relative_to(installed) for p in installed.rglob("*")}


def test_the_package_is_typed() -> None:
    cache = os.environ.get("MYPY_CACHE_DIR") or str(Path(sys.prefix) / "mypy-cache")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, "--config-file", "pyproject.toml", "src/cairn"]
    found = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_both_clients_have_the_same_methods() -> None:
    def methods(client: Any) -> dict[str, list[str]]:
        parts = {"": client, **{n: getattr(client, n) for n in ("collections", "points", "documents", "operations", "snapshots")}}
        return {
            f"{part}.{name}": list(inspect.signature(method).parameters)
            for part, thing in parts.items()
            for name, method in inspect.getmembers(thing, callable)
            if not name.startswith("_")
        }

    assert methods(cairn.Client()) == methods(cairn.AsyncClient())


def test_every_public_method_says_what_it_does() -> None:
    client = cairn.Client()
    things = [client, client.collections, client.points, client.documents, client.operations, client.snapshots, *vars(cairn).values()]
    for thing in things:
        if inspect.ismodule(thing) or isinstance(thing, (str, list)):
            continue
        for name, member in inspect.getmembers(thing, inspect.isroutine):
            if not name.startswith("_") and (getattr(member, "__module__", None) or "").startswith("cairn.") and name != "to_json":
                assert member.__doc__, f"{thing}.{name}"


def examples() -> list[doctest.DocTest]:
    """The examples of all docstrings of the synchronous client; the asynchronous ones are the same with `await`."""
    finder, found = doctest.DocTestFinder(exclude_empty=True), []
    for module in pkgutil.walk_packages(cairn.__path__, "cairn."):
        if not re.match(r"cairn\.(v1|_aio|llamaindex)", module.name):
            found += [t for t in finder.find(importlib.import_module(module.name)) if t.examples]
    return found


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.name)
def test_examples_run(example: doctest.DocTest, server: str) -> None:
    with Client(server) as client:
        prepare(client)
        globs = {**vars(cairn), "client": client, "URL": server}
        example.globs = globs
        report: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=report.append)
        assert result.failed == 0, "".join(report)
        assert result.attempted > 0
        for name in client.collections.list():
            if not name.startswith("t-"):
                client.collections.delete(name)


def prepare(client: Client) -> None:
    """What the examples ask about: two notes, and two points with vectors."""
    client.collections.create("notes")
    raft = "# Raft\n\nA follower that hears from no leader becomes a candidate in an election."
    client.documents.put(
        "notes",
        [
            {"id": "raft.md", "text": raft, "format": "markdown", "metadata": {"topic": "consensus"}},
            {"id": "tea.md", "text": "Green tea is brewed with water of 70 degrees.", "metadata": {"topic": "kitchen"}},
        ],
    )
    client.collections.create("vectors", Schema(vectors={"v": VectorSpec(3)}))
    points = [{"id": "a", "vector": [1, 0, 0], "payload": {"draft": 1}}, {"id": "b", "vector": [0, 1, 0], "payload": {"year": 2025}}]
    client.points.upsert("vectors", points)


def test_examples_of_both_clients_are_the_same_words() -> None:
    for part in ("client", "collections", "points", "documents"):
        sync, async_ = (importlib.import_module(f"cairn.{kind}.{part}") for kind in ("_sync", "_aio"))
        assert (inspect.getsource(sync).count(">>> ")) == (inspect.getsource(async_).count(">>> ")) > 0


async def test_the_examples_run_with_await(server: str) -> None:
    """One asynchronous docstring, literally, for the words `await` and `AsyncClient`."""
    text = inspect.getdoc(cairn.AsyncClient.enrich) or ""
    (example, *rest) = doctest.DocTestParser().get_examples(text)
    await asyncio.to_thread(lambda: prepare(Client(server)))
    try:
        async with cairn.AsyncClient(server) as client:
            scope: dict[str, Any] = {"client": client}
            code = compile(example.source, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            await eval(code, scope)  # noqa: S307 - our own docstring
            assert repr(eval(rest[0].source, scope)) == rest[0].want.strip()  # noqa: S307
    finally:
        with Client(server) as cleaner:
            for name in ("notes", "vectors"):
                cleaner.collections.delete(name)


def test_the_readme_runs(server: str) -> None:
    text = (HERE / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 4 and "http://127.0.0.1:7700" in text
    scope: dict[str, Any] = {}
    try:
        for block in blocks:
            exec(compile(block.replace("http://127.0.0.1:7700", server), "README.md", "exec"), scope)  # noqa: S102
    finally:
        client = scope["client"]
        for name in ("notes", "papers"):
            client.collections.delete(name, missing_ok=True)
        client.close()


def test_files_become_documents(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A")
    (tmp_path / "b.PDF").write_bytes(b"%PDF")
    (tmp_path / "c.png").write_bytes(b"x")
    markdown = cairn.Document.from_file(tmp_path / "a.md", id="a", metadata={"k": 1})
    assert (markdown.id, markdown.text, markdown.format, markdown.source) == ("a", "# A", "markdown", f"{tmp_path}/a.md")
    pdf = cairn.Document.from_file(tmp_path / "b.PDF")
    assert (pdf.format, pdf.data, pdf.text) == ("pdf", b"%PDF", "")
    with pytest.raises(cairn.InvalidError, match=r"no format is known for \.png"):
        cairn.Document.from_file(tmp_path / "c.png")
    for suffix in ("html", "htm", "xhtml"):
        (tmp_path / f"d.{suffix}").write_bytes(b"<p>caf\xe9")
        page = cairn.Document.from_file(tmp_path / f"d.{suffix}")
        assert (page.format, page.data, page.text) == ("html", b"<p>caf\xe9", "")

"""Makes what is generated: `cairn.v1` of the `.proto` files, and `cairn._sync` of `cairn._aio`.

`python scripts/generate.py` writes both; with `--check` it says what is not current, and a test runs that. The messages
need grpcio-tools; its version decides which protobuf a user needs at least, so it is not the newest on purpose.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PACKAGE = HERE / "src" / "cairn"
PROTO = HERE.parent.parent / "proto" / "proto"

# In order: what asynchronous code says, and what synchronous code says instead.
WORDS = [
    (r'"""The asynchronous client\. .*?"""', '"""The synchronous client. Generated of `_aio` by `scripts/generate.py`."""'),
    (r"One client serves many tasks\. It belongs to the event loop that it was first used in\.", "One client serves many threads."),
    (r"async (def|for|with)", r"\1"),
    (r"\(await ", "("),
    (r"\bawait ", ""),
    (r"async for", "for"),
    (r"\b__a(enter|exit)__", r"__\1__"),
    (r"\bAsync(Client|Core|Transport|GrpcTransport|RestTransport|Collections|Operations|Points|Documents|Snapshots|Iterator)\b", r"\1"),
    (r"\baclose\b", "close"),
    (r"^import grpc\.aio\n", ""),
    (r"\bgrpc\.aio\.", "grpc."),
    (r"\basyncio\.get_running_loop\(\)\.time\(\)", "time.monotonic()"),
    (r"^import asyncio\n(.*?)(?=^import json|^from )", r"\1"),
    (r"\basyncio\.sleep", "time.sleep"),
]


def synchronous(text: str) -> str:
    """The synchronous twin of asynchronous source."""
    for pattern, word in WORDS:
        text = re.sub(pattern, word, text, flags=re.MULTILINE | re.DOTALL)
    if re.search(r"\btime\.", text):
        last_future = "from __future__ import annotations\n\n"
        text = text.replace(last_future, last_future + "import time\n", 1)
        text = re.sub(r"(import time\n)((?:import \w+\n)+)", lambda m: "".join(sorted([m[1], *m[2].splitlines(True)])), text, count=1)
    return text


def sync_files() -> dict[Path, str]:
    """What `_sync` holds."""
    return {PACKAGE / "_sync" / f.name: synchronous(f.read_text()) for f in sorted((PACKAGE / "_aio").glob("*.py"))}


def proto_files() -> dict[Path, str]:
    """What `v1` holds."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as scratch:
        sources = [str(p.relative_to(PROTO)) for p in sorted(PROTO.rglob("*.proto"))]
        arguments = ["protoc", f"-I{PROTO}", f"--python_out={scratch}", f"--pyi_out={scratch}", *sources]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed")
        made = {PACKAGE / f.relative_to(Path(scratch) / "cairn"): f.read_text() for f in Path(scratch).rglob("*.py*")}
    made[PACKAGE / "v1" / "__init__.py"] = '"""The messages of `cairn.v1`, generated of proto/ by `scripts/generate.py`."""\n'
    return made


def stale() -> list[str]:
    """Names of generated files that are not what they should be."""
    wanted = {**sync_files(), **proto_files()}
    there = {f for folder in ("_sync", "v1") for f in (PACKAGE / folder).glob("*.py*") if f.suffix in (".py", ".pyi")}
    wrong = [f for f, text in wanted.items() if not f.exists() or f.read_text() != text]
    return sorted(str(f.relative_to(HERE)) for f in {*wrong, *(there - wanted.keys())})


if __name__ == "__main__":
    if "--check" in sys.argv:
        if old := stale():
            raise SystemExit(f"not current, run scripts/generate.py: {', '.join(old)}")
    else:
        for path, text in {**sync_files(), **proto_files()}.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

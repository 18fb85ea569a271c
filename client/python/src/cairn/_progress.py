"""Progress bars: tqdm's, which looks well in notebooks and terminals, or nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Any


class Bar:
    """A bar, or none."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def add(self, n: int) -> None:
        """That many more are done."""
        if self._inner is not None:
            self._inner.update(n)

    def to(self, place: float, message: str = "") -> None:
        """This much is done."""
        if self._inner is not None:
            if message:
                self._inner.set_description(message, refresh=False)
            self._inner.update(place - self._inner.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inner is not None:
            self._inner.close()


def bar(show: bool, *, unit: str, total: int | None = None) -> Bar:
    """A bar if `show`."""
    if not show:
        return Bar(None)
    try:
        from tqdm.auto import tqdm
    except ImportError as e:
        raise ImportError("progress bars need tqdm: pip install 'cairn[progress]'") from e
    return Bar(tqdm(total=total, unit=unit))

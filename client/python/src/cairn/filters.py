"""What a caller may say about payloads and ids, in a few typed words.

`Field("lang") == "en"` is a condition; `&`, `|` and `~` join conditions. What comes out is the JSON that REST takes, and
wherever a filter is taken, such JSON is taken too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from .errors import InvalidError

Scalar: TypeAlias = str | int | float | bool
#: An id: a string, or an integer that means its digits.
IdLike: TypeAlias = "str | int | np.integer[Any]"
#: A filter, a condition, or the JSON of one.
FilterLike: TypeAlias = "Filter | Condition | Mapping[str, Any]"


class _Joins:
    """What conditions and filters have in common: `&`, `|`, `~`."""

    __slots__ = ()

    def __and__(self, other: FilterLike) -> Filter:
        return Filter(must=[*_parts(self, "must"), *_parts(other, "must")])

    def __or__(self, other: FilterLike) -> Filter:
        if filter_json(self) == {} or filter_json(other) == {}:  # type: ignore[arg-type]
            return Filter()  # Everything, or something: everything.
        return Filter(should=[*_parts(self, "should"), *_parts(other, "should")])

    def __invert__(self) -> Filter:
        return Filter(must_not=[self])  # type: ignore[list-item]

    def __bool__(self) -> bool:
        # `and`, `or` and chained comparisons would silently drop a part.
        raise TypeError("join conditions with &, | and ~, each condition in parentheses")


@dataclass(frozen=True, slots=True, eq=False)
class Condition(_Joins):
    """One test. Made by `Field` and by `has_id`, `has_document`."""

    json: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The condition as REST takes it."""
        return self.json


@dataclass(slots=True, eq=False)
class Filter(_Joins):
    """A boolean tree. Empty means everything; all given parts must hold.

    ```python
    >>> from cairn import Field, Filter
    >>> ((Field("lang") == "en") & ~Field("status").any(["draft"])).to_json()
    {'must': [{'field': 'lang', 'match': 'en'}, {'must_not': [{'field': 'status', 'any': ['draft']}]}]}
    >>> Filter(should=[Field("a") == 1, Field("b") >= 2, Field("c").is_empty()], min_should=2).to_json()["min_should"]
    2

    ```
    """

    #: Every condition holds.
    must: list[FilterLike] = field(default_factory=list)
    #: At least `min_should` of these hold.
    should: list[FilterLike] = field(default_factory=list)
    #: None of these holds.
    must_not: list[FilterLike] = field(default_factory=list)
    #: How many of `should` must hold. Default: 1 if there are any.
    min_should: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The filter as REST takes it."""
        parts = {"must": self.must, "should": self.should, "must_not": self.must_not}
        json: dict[str, Any] = {name: [filter_json(c) for c in part] for name, part in parts.items() if part}
        if self.min_should is not None:
            json["min_should"] = self.min_should
        return json


class Field:
    """A dotted path into the payload, and the tests on it. An array matches if one of its elements does."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def match(self, value: Scalar) -> Condition:
        """The field equals the value. Numbers compare by value: 1 matches 1.0."""
        return self._test("match", _scalar(value))

    def any(self, values: Iterable[Scalar]) -> Condition:
        """The field equals one of the values."""
        return self._test("any", [_scalar(v) for v in values])

    def except_(self, values: Iterable[Scalar]) -> Condition:
        """The field has an element that is none of the values."""
        return self._test("except", [_scalar(v) for v in values])

    def range(
        self,
        *,
        gt: float | None = None,
        gte: float | None = None,
        lt: float | None = None,
        lte: float | None = None,
    ) -> Condition:
        """The field is a number in the range."""
        bounds = {"gt": gt, "gte": gte, "lt": lt, "lte": lte}
        return self._test("range", {k: _scalar(v) for k, v in bounds.items() if v is not None})

    def is_empty(self, yes: bool = True) -> Condition:
        """True: the field is missing, null or an empty array. False: it is not."""
        return self._test("is_empty", yes)

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return self.match(value)  # type: ignore[arg-type]

    def __ne__(self, value: object) -> Filter:  # type: ignore[override]
        return ~self.match(value)  # type: ignore[arg-type]

    def __gt__(self, value: float) -> Condition:
        return self.range(gt=value)

    def __ge__(self, value: float) -> Condition:
        return self.range(gte=value)

    def __lt__(self, value: float) -> Condition:
        return self.range(lt=value)

    def __le__(self, value: float) -> Condition:
        return self.range(lte=value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Field({self.path!r})"

    def _test(self, name: str, value: Any) -> Condition:
        return Condition({"field": self.path, name: value})


def has_id(ids: IdLike | Iterable[IdLike]) -> Condition:
    """The point's id is one of these."""
    return Condition({"has_id": ids_json(ids)})


def has_document(ids: IdLike | Iterable[IdLike]) -> Condition:
    """The point is a chunk of one of these documents."""
    return Condition({"has_document": ids_json(ids)})


def ids_json(ids: IdLike | Iterable[IdLike]) -> list[str]:
    """JSON of whatever is taken as one id or several."""
    if isinstance(ids, (str, int, np.integer)):
        return [str(ids)]
    if not isinstance(ids, Iterable) or isinstance(ids, (bytes, bytearray)):
        raise InvalidError(f"ids are strings or integers, got {type(ids).__name__}", code="bad_request")
    return [str(i) for i in ids]


def filter_json(given: FilterLike) -> dict[str, Any]:
    """JSON of whatever is taken as a filter or condition."""
    if isinstance(given, (Filter, Condition)):
        return given.to_json()
    if isinstance(given, Mapping):
        return {k: [filter_json(c) for c in v] if k in ("must", "should", "must_not") else v for k, v in given.items()}
    raise TypeError(f"a filter is a Filter, a Condition or a dict, got {type(given).__name__}")


def whole_filter(given: FilterLike | None) -> dict[str, Any] | None:
    """JSON of a filter; a lone condition becomes a filter that demands it."""
    if given is None:
        return None
    json = filter_json(given)
    lone = "field" in json or "has_id" in json or "has_document" in json
    return {"must": [json]} if lone else json


def _parts(given: FilterLike | _Joins, part: str) -> list[FilterLike]:
    """The conditions of a filter that says nothing but `part`, so that `a & b & c` stays flat; else the thing itself."""
    if isinstance(given, Filter):
        others = {"must", "should", "must_not"} - {part}
        if given.min_should is None and not any(getattr(given, other) for other in others):
            return list(getattr(given, part))
    return [given]  # type: ignore[list-item]


def _scalar(value: Any) -> Any:
    """NumPy's scalars are not JSON."""
    item = getattr(value, "item", None)
    return item() if callable(item) and not isinstance(value, (str, int, float)) else value

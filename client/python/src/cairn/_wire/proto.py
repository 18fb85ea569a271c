"""JSON of the REST API to and from the messages of gRPC.

Led by the messages' descriptors: names, units and defaults are the same in both, so a new field of the contract needs
nothing here. Written down are only the places where the shapes differ, and vectors, which are copied as bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ..errors import InvalidError
from ..requests import scalar

Json = dict[str, Any]
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(0, 2**64)


# ---- JSON to messages ----


def fill(message: Message, json: Mapping[str, Any], at: str = "") -> None:
    """Sets the fields of `message` that `json` names. What cannot be said is an `InvalidError` that says where."""
    shape = _SHAPES_IN.get(message.DESCRIPTOR.name)
    if shape is not None:
        json = shape(json)
    known = message.DESCRIPTOR.fields_by_name
    for name, value in json.items():
        if value is None:
            continue
        field = known.get(name)
        place = f"{at}/{name}"
        if field is None:
            allowed = ", ".join(known)
            raise InvalidError(f"unknown field {name!r}; allowed: {allowed}", code="bad_request", pointer=place)
        try:
            _fill_field(message, field, value, place)
        except (TypeError, ValueError, OverflowError, AttributeError) as e:
            if isinstance(e, InvalidError):
                e.pointer = e.pointer or place
                raise
            raise InvalidError(f"a wrong value: {e}", code="bad_request", pointer=place) from None


def _fill_field(message: Message, field: Any, value: Any, at: str) -> None:
    if _is_map(field):
        target = getattr(message, field.name)
        item = field.message_type.fields_by_name["value"]
        for key, one in value.items():
            if item.message_type is None:
                target[key] = one
            else:
                _fill_message(target[key], one, f"{at}/{key}")
    elif field.is_repeated:
        target = getattr(message, field.name)
        if field.message_type is None:
            target.extend(_enum(field, v) if field.enum_type else _native(v) for v in value)
        else:
            for i, one in enumerate(value):
                _fill_message(target.add(), one, f"{at}/{i}")
    elif field.message_type is not None:
        part = getattr(message, field.name)
        # `SetInParent` says "it is there" also of what is empty.
        part.SetInParent()
        _fill_message(part, value, at)
    else:
        setattr(message, field.name, _enum(field, value) if field.enum_type else _native(value))


def _fill_message(message: Message, value: Any, at: str) -> None:
    special = _WRITERS.get(message.DESCRIPTOR.name)
    if special is not None:
        special(message, value)
    elif isinstance(value, Mapping):
        fill(message, value, at)
    else:
        raise InvalidError(f"an object is needed, got {type(value).__name__}", code="bad_request", pointer=at)


def _native(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _enum(field: Any, word: Any) -> int:
    kind = field.enum_type
    prefix = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
    found = kind.values_by_name.get(f"{prefix}{str(word).upper()}")
    if found is None or found.number == 0:
        allowed = ", ".join(v.name.removeprefix(prefix).lower() for v in kind.values if v.number)
        raise ValueError(f"{field.name} is one of {allowed}, got {word!r}")
    return int(found.number)


def _write_vector(message: Message, values: Any) -> None:
    data = np.ascontiguousarray(values, dtype="<f4").tobytes()
    # A packed field as it is on the wire (tag of field 1, length, floats): setting them one by one takes 30 times longer.
    message.MergeFromString(b"\x0a" + _varint(len(data)) + data)


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _write_value(message: Any, value: Any) -> None:
    if value is None:
        message.null = True
    elif isinstance(value, bool):
        message.bool = value
    elif isinstance(value, int):
        if value in _INT64:
            message.int = value
        elif value in _UINT64:
            message.uint = value
        else:
            message.double = float(value)
    elif isinstance(value, float):
        message.double = value
    elif isinstance(value, str):
        message.string = value
    elif isinstance(value, Mapping):
        message.struct.SetInParent()
        _write_struct(message.struct, value)
    elif isinstance(value, (list, tuple)):
        message.list.SetInParent()
        for one in value:
            _write_value(message.list.values.add(), one)
    else:
        _write_value(message, scalar(value))


def _write_struct(message: Any, value: Mapping[str, Any]) -> None:
    for key, one in value.items():
        if not isinstance(key, str):
            raise TypeError(f"keys are strings, got {key!r}")
        _write_value(message.fields[key], one)


def _write_scalar(message: Any, value: Any) -> None:
    value = _native(value)
    if isinstance(value, bool):
        message.bool = value
    elif isinstance(value, str):
        message.string = value
    elif isinstance(value, int) and value in _INT64:
        message.int = value
    elif isinstance(value, (int, float)):
        message.double = float(value)
    else:
        raise TypeError("a value to match is a string, a number or a boolean")


def _write_scalars(message: Any, values: Any) -> None:
    for one in values:
        _write_scalar(message.values.add(), one)


def _write_ids(message: Any, ids: Any) -> None:
    message.ids.extend(str(i) for i in ids)


_WRITERS: dict[str, Callable[[Any, Any], None]] = {
    "Vector": _write_vector,
    "Struct": _write_struct,
    "Value": _write_value,
    "Scalar": _write_scalar,
    "Scalars": _write_scalars,
    "Ids": _write_ids,
}


def _vector_spec_in(json: Mapping[str, Any]) -> Json:
    index = json.get("index")
    rest = {k: v for k, v in json.items() if k != "index"}
    if index is None:
        return rest
    return {**rest, index.get("type", "?"): {k: v for k, v in index.items() if k != "type"}}


def _field_spec_in(json: Mapping[str, Any]) -> Json:
    extra = {k: v for k, v in json.items() if k not in ("type", "analyzer")}
    return {str(json.get("type")): json.get("analyzer") or {}, **extra}


def _condition_in(json: Mapping[str, Any]) -> Json:
    nested = {k: v for k, v in json.items() if k in ("must", "should", "must_not", "min_should")}
    rest = {k: v for k, v in json.items() if k not in nested}
    return {**rest, "nested": nested} if nested else rest


def _prefetch_in(json: Mapping[str, Any]) -> Json:
    """`prefetch: [...], fuse: {...}` of a query or leg becomes one message."""
    if "prefetch" not in json:
        return dict(json)
    rest = {k: v for k, v in json.items() if k not in ("prefetch", "fuse")}
    return {**rest, "prefetch": {"legs": json["prefetch"], **(json.get("fuse") or {})}}


_SHAPES_IN: dict[str, Callable[[Mapping[str, Any]], Json]] = {
    "VectorSpec": _vector_spec_in,
    "FieldSpec": _field_spec_in,
    "Condition": _condition_in,
    "QueryRequest": _prefetch_in,
    "Leg": _prefetch_in,
}


# ---- messages to JSON ----


def read(message: Message) -> Json:
    """The JSON that REST would answer with."""
    json: Json = {}
    for name, get in _reader(message.DESCRIPTOR):
        value = get(message)
        if value is not None:
            json[name] = value
    shape = _SHAPES_OUT.get(message.DESCRIPTOR.name)
    return json if shape is None else shape(json)


_READERS: dict[Any, list[tuple[str, Callable[[Any], Any]]]] = {}


def _reader(descriptor: Any) -> list[tuple[str, Callable[[Any], Any]]]:
    found = _READERS.get(descriptor)
    if found is None:
        found = _READERS[descriptor] = [(f.name, _field_reader(f)) for f in descriptor.fields]
    return found


def _field_reader(field: Any) -> Callable[[Any], Any]:
    name = field.name
    if _is_map(field):
        one = _item_reader(field.message_type.fields_by_name["value"])
        return lambda m: {k: one(v) for k, v in getattr(m, name).items()}
    one = _item_reader(field)
    if field.is_repeated:
        return lambda m: [one(v) for v in getattr(m, name)]
    if field.has_presence:
        return lambda m: one(getattr(m, name)) if m.HasField(name) else None
    return lambda m: one(getattr(m, name))


def _item_reader(field: Any) -> Callable[[Any], Any]:
    if field.message_type is not None:
        return _MESSAGE_READERS.get(field.message_type.name, read)
    if field.enum_type is not None:
        kind = field.enum_type
        prefix = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
        words = {v.number: v.name.removeprefix(prefix).lower() if v.number else None for v in kind.values}
        return lambda number: words.get(number, str(number))
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return shortest
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda b: base64.b64encode(b).decode()
    return lambda v: v


def shortest(value: float) -> float:
    """The double with the fewest digits that is this float: 0.1, not 0.10000000149011612, as REST writes it."""
    return float(str(np.float32(value)))


def _read_vector(message: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    data = message.SerializeToString()
    # The floats are all that follows the tag and the length.
    return np.frombuffer(data, dtype="<f4", offset=len(data) - 4 * len(message.values)).copy()


def _read_sparse(message: Any) -> Json:
    return {"indices": np.array(message.indices, np.uint32), "values": np.array(message.values, np.float32)}


def _read_value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "struct":
        return _read_struct(message.struct)
    if kind == "list":
        return [_read_value(v) for v in message.list.values]
    return None if kind in (None, "null") else getattr(message, kind)


def _read_struct(message: Any) -> Json:
    return {k: _read_value(v) for k, v in message.fields.items()}


_MESSAGE_READERS: dict[str, Callable[[Any], Any]] = {
    "Vector": _read_vector,
    "SparseVector": _read_sparse,
    "Struct": _read_struct,
    "Value": _read_value,
    "Span": lambda m: [m.start, m.end],
    "Explain": lambda m: [read(leg) for leg in m.legs],
}


def _vector_spec_out(json: Json) -> Json:
    for kind in ("flat", "hnsw", "ivf", "faiss"):
        if kind in json:
            json["index"] = {"type": kind, **json.pop(kind)}
    return json


def _field_spec_out(json: Json) -> Json:
    (kind, settings), *_ = json.items() or [("stored", {})]
    return {"type": kind, "analyzer": settings} if settings else {"type": kind}


def _hit_out(json: Json) -> Json:
    return {**json.pop("point", {}), **json}


def _batch_out(json: Json) -> Json:
    # The time of a batch is that of all of it.
    for one in json["results"]:
        one.pop("took_ms", None)
    return json


_SHAPES_OUT: dict[str, Callable[[Json], Json]] = {
    "VectorSpec": _vector_spec_out,
    "FieldSpec": _field_spec_out,
    "Hit": _hit_out,
    "QueryBatchResponse": _batch_out,
}


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)

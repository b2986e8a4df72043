"""Nested values -> protobuf's text format, which Triton's config.pbtxt uses. Needs the standard library only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Union

Scalar = Union[str, int, bool, "Name"]
Message = Mapping[str, Union[Scalar, "Message", Sequence["Message"], Sequence[Scalar]]]
"""Field -> its value, or the values of a repeated field. A map field is the list of its entries (see `entries`)."""


class Name(str):
    """Name of an enum's value, which is written without quotes."""

    __slots__ = ()


def entries(values: Mapping[str, Scalar | Message]) -> list[Message]:
    """Return the entries of a map field."""
    return [{"key": key, "value": value} for key, value in values.items()]


def pbtxt(message: Message) -> str:
    """Return a whole message as text."""
    return "\n".join(_lines(message, "")) + "\n"


def _lines(message: Message, indent: str) -> Iterator[str]:
    for field, value in message.items():
        if isinstance(value, Mapping):
            value = [value]
        if isinstance(value, (str, int)):
            yield f"{indent}{field}: {_scalar(value)}"
        elif any(isinstance(one, Mapping) for one in value):
            for one in value:
                assert isinstance(one, Mapping)
                yield f"{indent}{field} {{"
                yield from _lines(one, indent + "  ")
                yield f"{indent}}}"
        else:
            yield f"{indent}{field}: [{', '.join(_scalar(one) for one in value if isinstance(one, (str, int)))}]"


def _scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Name) or not isinstance(value, str):
        return str(value)
    return json.dumps(value, ensure_ascii=False)  # both formats are UTF-8 and quote in the same way

"""Bytes and JSON -> the same content with seeded damage that follows its format."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.random import Generator

Option = TypeVar("Option")
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**63, 10**19, 10**309, -(10**400), 0.5, -0.0, 1e-320,
    1e308, float("inf"), float("-inf"), float("nan"), "", "a", "\n", "\x1b[31m", "\x00", "\u2028", "\ud800", "x" * 5000,
    [], {}, [[]], [None], [float("nan")], [10**309], {"": None}, ["jawOpen", "jawOpen"],
)  # fmt: skip
"""Values that replace other values."""


def chosen(random: Generator, options: Sequence[Option]) -> Option:
    """Return a random element of `options`."""
    return options[int(random.integers(len(options)))]


def damaged(data: bytes, random: Generator) -> bytes:
    """Return data with one to four random changes: cut, changed, blanked, doubled, or with an extreme number."""
    for _ in range(int(random.integers(1, 5))):
        array = bytearray(data)
        size = len(array)
        if not size:
            return bytes(random.integers(0, 256, 16, np.uint8))
        # Half of the damage is near the beginning, where headers are.
        start = int(random.integers(min(size, 200) if random.random() < 0.5 else size))
        length = int(random.integers(1, max(2, size // 10)))
        kind = int(random.integers(8))
        if kind == 0:
            array = array[:start]
        elif kind == 1:
            for place in random.integers(size, size=int(random.integers(1, 40))):
                array[place] = int(random.integers(256))
        elif kind == 2:
            array[start] ^= 1 << int(random.integers(8))
        elif kind == 3:
            del array[start : start + length]
        elif kind == 4:
            array[start:start] = array[start : start + length]
        elif kind == 5:
            array[start : start + length] = bytes(len(array[start : start + length]))
        elif kind == 6:
            number = struct.pack(chosen(random, ("<I", ">I", "<Q", ">H", "<H")), chosen(random, EXTREMES) & 0xFFFF)
            array[start : start + len(number)] = number
        else:
            number = struct.pack(chosen(random, ("<I", ">I")), chosen(random, EXTREMES))
            array[start : start + 4] = number
        data = bytes(array)
    return data


def written(path: Path, data: bytes) -> Path:
    """Write data to a path and return the path."""
    path.write_bytes(data)
    return path


def spoiled_json(value: Any, random: Generator) -> str:
    """Return JSON with one to three values replaced, left out or nested, or with damage in its text."""
    for _ in range(int(random.integers(1, 4))):
        value = spoiled(value, random)
    text = json.dumps(value)
    kind = random.random()
    if kind < 0.1:
        depth = int(random.integers(500, 200_000))
        text = chosen(random, ("[" * depth, '{"version":' * depth, "[" * depth + "]" * depth))
    elif kind < 0.2:
        text = text.replace("128", "1" * int(random.integers(4000, 6000)), 1)
    elif kind < 0.4:
        text = damaged(text.encode(), random).decode("utf-8", "replace")
    return text


def spoiled(value: Any, random: Generator) -> Any:
    """Return the value with another value at some place."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = chosen(random, list(value))
        if random.random() < 0.1:
            return {name: one for name, one in value.items() if name != key}
        return {**value, key: spoiled(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.6:
        place = int(random.integers(len(value)))
        return [*value[:place], spoiled(value[place], random), *value[place + 1 :]]
    return chosen(random, VALUES)

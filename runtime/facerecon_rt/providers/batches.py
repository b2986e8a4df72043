"""Many crops -> runs of a few sizes: memory stays bounded, and a GPU meets the same shapes again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..contract import ModelContract

BUCKETS = (1, 2, 4, 8, 16)
"""Crops in a run where the file takes any number. What an engine is built for, and a captured graph replays."""
USUAL = 4
"""The bucket whose speed an engine is optimised for; the others run on the same engine."""

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Run:
    """Crops `start` to `stop` in a run of `size` crops; those that lack are repeats of the last."""

    start: int
    stop: int
    size: int


def buckets_of(contract: ModelContract) -> tuple[int, ...]:
    """Sizes of the runs that a file can do, rising."""
    return (contract.batch,) if contract.batch else BUCKETS


def runs_of(count: int, buckets: Sequence[int]) -> Iterator[Run]:
    """The largest bucket as often as it is filled, then the smallest that takes the rest."""
    largest = buckets[-1]
    for start in range(0, count, largest):
        stop = min(start + largest, count)
        yield Run(start, stop, next(size for size in buckets if size >= stop - start))


def profile(contract: ModelContract) -> dict[str, Shapes]:
    """Input -> its smallest, usual and largest shape, as TensorRT's optimisation profiles have them; {} for a file of
    a fixed batch, which needs none."""
    if contract.batch:
        return {}
    picture = (contract.input_size, contract.input_size, 3)
    return {"image": ((BUCKETS[0], *picture), (USUAL, *picture), (BUCKETS[-1], *picture))}

"""Number of crops -> runs of a few fixed batch sizes, so that memory stays bounded and a GPU sees few shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..contract import ModelContract

BUCKETS = (1, 2, 4, 8, 16)
"""Batch sizes for a file with a dynamic batch. An engine is built for them, and captured graphs replay them."""
USUAL = 4
"""Batch size that an engine is optimised for. The other sizes run on the same engine."""

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Run:
    """A run over the crops `start` to `stop` with batch size `size`. The last crop is repeated to fill the batch."""

    start: int
    stop: int
    size: int


def buckets_of(contract: ModelContract) -> tuple[int, ...]:
    """Return the batch sizes that a file can run, in rising order."""
    return (contract.batch,) if contract.batch else BUCKETS


def runs_of(count: int, buckets: Sequence[int]) -> Iterator[Run]:
    """Yield runs of the largest batch size while it can be filled, then the smallest that holds the remaining crops."""
    largest = buckets[-1]
    for start in range(0, count, largest):
        stop = min(start + largest, count)
        yield Run(start, stop, next(size for size in buckets if size >= stop - start))


def profile(contract: ModelContract) -> dict[str, Shapes]:
    """Return the smallest, usual and largest shape of each input, for TensorRT's optimisation profiles. A file with a
    fixed batch, or for an image set, needs none and gives {}."""
    if contract.batch or contract.set_size:
        return {}
    picture = (contract.input_size, contract.input_size, 3)
    return {"image": ((BUCKETS[0], *picture), (USUAL, *picture), (BUCKETS[-1], *picture))}

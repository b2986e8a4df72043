"""Many crops run in batches of a few sizes."""

from __future__ import annotations

from facerecon_rt.providers.batches import BUCKETS, Run, profile, runs_of

from tests.conftest import TINY_SIZE


def test_the_largest_run_is_filled_and_the_rest_takes_the_smallest_that_holds_it() -> None:
    assert list(runs_of(37, (1, 2, 4, 8, 16))) == [Run(0, 16, 16), Run(16, 32, 16), Run(32, 37, 8)]
    assert list(runs_of(1, (1, 2))) == [Run(0, 1, 1)]
    assert list(runs_of(4, (3,))) == [Run(0, 3, 3), Run(3, 4, 3)]
    assert list(runs_of(0, BUCKETS)) == []


def test_every_run_lies_within_the_profile() -> None:
    from facerecon_rt.contract import ModelContract

    contract = ModelContract(TINY_SIZE, 4032, "ab" * 32, "tiny")
    smallest, usual, largest = profile(contract)["image"]
    assert smallest[0] <= usual[0] <= largest[0]
    assert smallest[1:] == usual[1:] == largest[1:] == (TINY_SIZE, TINY_SIZE, 3)
    for count in range(1, 40):
        assert all(smallest[0] <= run.size <= largest[0] for run in runs_of(count, BUCKETS))

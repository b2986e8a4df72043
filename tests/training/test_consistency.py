"""Shapes of people: told apart or not, and steadier in sets."""

from __future__ import annotations

import numpy as np
import pytest
from facerecon_training.consistency import auc, can_be_paired, pair_figures, set_figures


def people_and_views(noise: float, people: int = 6, views: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = random.normal(0, 30, (1, 40, 3)) + random.normal(0, 2, (people, 40, 3))
    who = np.repeat(np.arange(people), views)
    return (truth[who] + random.normal(0, noise, (people * views, 40, 3))).astype(np.float32), who, truth[who]


def test_an_area_counts_ordered_pairs() -> None:
    assert auc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1
    # 3 > 1, 3 > 2, 2.5 > 1, 2.5 > 2, 0 above neither
    assert auc(np.array([3.0, 2.5, 0.0]), np.array([1.0, 2.0])) == pytest.approx(4 / 6)
    with pytest.raises(ValueError, match="both kinds"):
        auc(np.zeros(0), np.ones(1))


def test_people_are_told_apart_by_what_exceeds_the_noise() -> None:
    shapes, who, _ = people_and_views(noise=0.5)
    clear = pair_figures(shapes, who)
    assert clear["auc"] == pytest.approx(1.0)
    assert clear["same_person_mm"] == pytest.approx(0.5 * np.sqrt(6), rel=0.05)
    same, _, _ = people_and_views(noise=1.0)
    shuffled = pair_figures(same, np.random.default_rng(1).permutation(who))
    assert shuffled["auc"] == pytest.approx(0.5, abs=0.1)
    assert shuffled["auc_whitened"] == pytest.approx(0.5, abs=0.1)


def test_larger_sets_err_less() -> None:
    shapes, who, truth = people_and_views(noise=3.0)
    rows = set_figures(shapes, np.ones(len(shapes), np.float32), who, truth)
    assert list(rows) == ["1", "2", "5", "10"]
    errors = [row["rmse_mm"] for row in rows.values()]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] == pytest.approx(errors[0] / np.sqrt(10), rel=0.25)
    assert "spread_mm" not in rows["1"]
    assert rows["5"]["same_person_mm"] < rows["5"]["two_people_mm"]


def test_people_with_few_photographs_make_no_large_sets() -> None:
    shapes, who, _ = people_and_views(noise=1.0, views=4)
    assert list(set_figures(shapes, np.ones(len(shapes), np.float32), who)) == ["1", "2"]


def test_pairs_need_one_person_twice_and_two_people() -> None:
    assert can_be_paired(np.array([0, 0, 1]))
    assert not can_be_paired(np.array([0, 0, 0]))
    assert not can_be_paired(np.array([0, 1, 2]))
    assert not can_be_paired(np.array([], np.int64))

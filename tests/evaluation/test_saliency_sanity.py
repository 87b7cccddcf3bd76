"""Sanity checks on made-up maps and an answer that is known to hang on one corner."""

import numpy as np
import pytest

from adpet.evaluation.saliency import (
    area_under,
    cascade_rows,
    deletion_insertion,
    gains,
    highest_first,
    in_blocks_at_random,
    map_similarity,
)

INSIDE = np.zeros((2, 16, 16), bool)
INSIDE[:, 2:14, 2:14] = True
HEALTHY = np.full((2, 16, 16), 200, np.uint8)
ILL = HEALTHY.copy()
ILL[:, 2:6, 2:6] = 100


def log_odds(slices):
    """Dark in the corner speaks for AD."""
    return float((200 - slices[:, 2:6, 2:6].astype(float)).mean())


def curves(order):
    return deletion_insertion(ILL, HEALTHY, order, log_odds, steps=9)


class TestSimilarity:
    def test_only_ranks_inside_matter(self):
        a = np.random.default_rng(0).normal(size=INSIDE.shape)
        assert map_similarity(a, np.where(INSIDE, np.exp(a), 99), INSIDE) == pytest.approx(1)
        assert map_similarity(a, -a, INSIDE) == pytest.approx(-1)

    def test_a_constant_map_is_like_nothing(self):
        a = np.random.default_rng(0).normal(size=INSIDE.shape)
        assert map_similarity(a, np.ones(INSIDE.shape), INSIDE) == 0

    def test_a_cascade_begins_with_the_network_itself(self):
        a = np.random.default_rng(0).normal(size=(2, *INSIDE.shape))
        rows = cascade_rows(list(a), iter([("head", [a[0], -a[1]])]), INSIDE)
        assert [row["layer"] for row in rows] == ["none", "head"]
        assert rows[1]["similarity"] == pytest.approx(0)
        assert (rows[1]["lowest"], rows[1]["highest"]) == pytest.approx((-1, 1))


class TestReplacing:
    def test_begins_with_one_scan_and_ends_with_the_other(self):
        found = curves(highest_first(200.0 - ILL, INSIDE))
        assert (found["share"][0], found["share"][-1]) == (0, 1)
        assert found["deletion"][0] == found["insertion"][-1] == log_odds(ILL)
        assert found["deletion"][-1] == found["insertion"][0] == log_odds(HEALTHY)

    def test_a_map_that_knows_where_it_is_beats_a_random_order(self):
        random = curves(in_blocks_at_random(INSIDE, np.random.default_rng(0), block=2))
        found = gains(curves(highest_first(200.0 - ILL, INSIDE)), random)
        assert min(found.values()) > 20

    def test_a_map_that_points_away_is_worse_than_a_random_order(self):
        random = curves(in_blocks_at_random(INSIDE, np.random.default_rng(0), block=2))
        found = gains(curves(highest_first(ILL.astype(float), INSIDE)), random)
        assert max(found.values()) < -20

    def test_a_random_order_takes_every_pixel_once_and_blocks_whole(self):
        order = in_blocks_at_random(INSIDE, np.random.default_rng(0), block=4)
        np.testing.assert_array_equal(np.sort(order), np.flatnonzero(INSIDE))
        planes, rows, columns = np.unravel_index(order, INSIDE.shape)
        blocks = list(zip(planes, rows // 4, columns // 4, strict=True))
        changes = sum(a != b for a, b in zip(blocks[1:], blocks[:-1], strict=True))
        assert changes == len(set(blocks)) - 1


def test_the_area_under_a_straight_line_is_its_middle():
    assert area_under([0.0, 1.0], [0.0, 1.0]) == 0.5

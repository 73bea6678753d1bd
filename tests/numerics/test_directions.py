"""Directions are described, not sent: any range of one is the same wherever and however it is expanded."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradcheck._backends._worker import directions


@given(st.integers(0, 2**128 - 1), st.integers(0, 500), st.integers(0, 500))
def test_a_range_is_part_of_the_whole(key, low, length):
    whole = directions.expand(key, 0, 1000)
    assert np.array_equal(directions.expand(key, low, low + length), whole[low : low + length])


def test_values_are_fixed_for_ever():
    """numpy promises Philox.random_raw; everything else is exact arithmetic."""
    digest = hashlib.sha256(directions.expand(12345, 0, 1000).tobytes()).hexdigest()
    assert digest == DIGEST


def test_entries_are_between_one_half_and_one_with_either_sign():
    entries = directions.expand(1, 0, 100_000)
    assert 0.5 <= np.abs(entries).min() < 0.501
    assert 0.999 < np.abs(entries).max() <= 1
    assert abs(entries.mean()) < 0.01


def test_blocks_cover_a_tensor_once(monkeypatch):
    monkeypatch.setattr(directions, "BLOCK", 7)
    assert [stop - start for start, stop in directions.blocks(20)] == [7, 7, 6]
    target = np.zeros(20)
    directions.add(target, 2.0, {"key": 9})
    assert np.array_equal(target, 2 * directions.expand(9, 0, 20))


def test_dot_and_add_agree():
    array = np.arange(30.0).reshape(5, 6)
    for move in (
        {"key": 3},
        {"entry": 7},
        {"key": 3, "base": 6, "digit": 1},
        {"key": 3, "axis": [6, 5], "base": 5, "digit": 0, "box": [[1, 6, 2, 4]], "group": [8, 1, 0]},
    ):
        flat = np.zeros(30)
        directions.add(flat, 1.0, move)
        total, norm, size = directions.dot(array, move)
        product = array.reshape(-1) * flat
        assert np.isclose(total, product.sum())
        assert np.isclose(norm, np.linalg.norm(product))
        assert np.isclose(size, np.abs(product).sum())


def test_digits_of_an_axis_boxes_and_groups_weight_a_direction(monkeypatch):
    monkeypatch.setattr(directions, "BLOCK", 7)  # ranges that begin in the middle of a row
    plain = directions.expand(3, 0, 30).reshape(5, 6)

    def expanded(**more):
        target = np.zeros(30)
        directions.add(target, 1.0, {"key": 3, **more})
        return target.reshape(5, 6)

    rows, columns = np.indices((5, 6))
    assert np.array_equal(expanded(axis=[6, 5], base=5, digit=0), plain * (rows / 4))
    assert np.array_equal(expanded(axis=[1, 6], base=2, digit=1), plain * (columns // 2 % 2))
    inside = (rows >= 1) & (rows < 3) & (columns == 4)
    assert np.array_equal(expanded(box=[[6, 5, 1, 3], [1, 6, 4, 5]]), plain * inside)
    halves = [expanded(group=[8, 1, pattern]) for pattern in (0, 1)]
    assert np.array_equal(halves[0] + halves[1], plain)
    quarters = [expanded(group=[8, 2, pattern]) for pattern in (0, 2)]
    assert np.array_equal(quarters[0] + quarters[1], halves[0])
    assert 0 < np.count_nonzero(halves[0]) < 30


DIGEST = "30e360906e783ead8ce77fd25ea45325c5e8719658c93986645ae2fa29667938"

"""A lone wrong entry is found by the digits of its index, however large the tensor; several are not mistaken for one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcheck._backends._worker import directions
from gradcheck.numerics import localise


def search(errors, size, uncertainty=1e-9, key=5):
    """Find the wrong entry of a gradient with these errors by index; returns (index or None, probes used)."""
    probes = 0

    def discrepancy(move):
        entries = np.array([directions.part(move, k, k + 1)[0] for k in errors])
        return float(entries @ np.array(list(errors.values())))

    def weighted(m):
        nonlocal probes
        probes += 1
        return discrepancy({"key": key, "base": base, "digit": m})

    plain = discrepancy({"key": key})
    base = localise.base_for(size, plain, uncertainty)
    return (None, 0) if base is None else (localise.lone_entry(size, plain, base, weighted), probes)


@given(st.integers(2, 10**7), st.data())
def test_any_lone_entry_is_found(size, data):
    index = data.draw(st.integers(0, size - 1))
    found, probes = search({index: 1e-3}, size)
    assert found == index
    assert probes <= 2


def test_small_errors_take_more_digits():
    found, probes = search({123_456: 1e-7}, 1_000_000)
    assert found == 123_456
    assert 3 <= probes <= 8


def test_an_error_below_the_uncertainty_is_not_looked_for():
    assert search({7: 1e-9}, 1000) == (None, 0)


@pytest.mark.parametrize("seed", range(20))
def test_of_two_errors_neither_is_called_alone(seed):
    """The digits of two errors blend; an index that they happen to spell is refuted by that entry's own difference."""
    generator = np.random.Generator(np.random.Philox(seed))
    errors = dict(zip(generator.choice(10_000, 2, replace=False).tolist(), [1e-3, 2e-3], strict=True))
    found, _ = search(errors, 10_000)
    assert found not in errors

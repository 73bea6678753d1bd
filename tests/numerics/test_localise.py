"""Wrong entries are placed from weighted and restricted directions, however large the tensor, in a counted number of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck._backends._worker import directions
from gradcheck.numerics import localise
from gradcheck.numerics.localise import Reading, bucket, hull, peel, single


class Errors:
    """A channel through which a gradient with these errors (by flat index) is seen, with rounding; counts its readings."""

    groups = 77

    def __init__(self, shape, errors, bound=1e-9, key=5):
        self.shape, self.errors, self.bound = shape, errors, bound
        self.direction, self.values = {"key": key}, np.zeros(0)
        self.readings = 0
        self.rounding = np.random.Generator(np.random.Philox(key))

    def read(self, move):
        self.readings += 1
        value = sum(e * localise.weight(self, k, move) for k, e in self.errors.items())
        return Reading(value + self.bound / 10 * self.rounding.uniform(-1, 1), self.bound, self.bound)

    def entry(self, index):
        self.readings += 1
        return Reading(self.errors.get(index, 0.0), self.bound, self.bound)


def found_by(channel, most=1000):
    """Peel until nothing is left or so many readings were made; returns (errors by index, whether those are all)."""
    found, queue = {}, [bucket(channel, channel.read({}))]
    peel(channel, queue, found, lambda: channel.readings < most)
    return {k: e.value for k, e in found.items()}, not queue


shapes = st.lists(st.integers(1, 300), min_size=1, max_size=4).filter(lambda shape: math.prod(shape) > 1)


@given(shapes, st.data())
def test_any_lone_entry_is_found(shape, data):
    channel = Errors(tuple(shape), {data.draw(st.integers(0, math.prod(shape) - 1)): 1e-3})
    assert found_by(channel) == (channel.errors, True)
    assert channel.readings == 2 + sum(length > 1 for length in shape)  # plain, one per axis, the entry itself


def test_small_errors_take_more_digits():
    channel = Errors((1000, 1000), {123_456: 1e-7})
    assert found_by(channel) == (channel.errors, True)
    assert 6 <= channel.readings <= 10


def test_an_error_below_the_bound_is_not_looked_for():
    channel = Errors((1000,), {7: 1e-10})
    assert found_by(channel)[0] == {}


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([(1_000_000,), (1000, 1000), (50, 80, 60), (13, 14)]),
    st.integers(2, 20),
    st.integers(0, 2**32),
    st.floats(0, 3),
)
def test_any_set_of_errors_is_found(shape, count, seed, decades):
    """Of any sizes over so many decades, and with no more readings than 25 values a piece and 20 would be, of 4 values each."""
    random = np.random.Generator(np.random.Philox(seed))
    indices = random.choice(math.prod(shape), count, replace=False).tolist()
    sizes = random.choice([-1.0, 1.0], count) * 10 ** random.uniform(-3, -3 + decades, count)
    channel = Errors(shape, dict(zip(indices, sizes.tolist(), strict=True)), bound=1e-11, key=seed)
    found, complete = found_by(channel)
    assert complete
    assert found == channel.errors
    assert channel.readings <= 1.5 * (25 * count + 20) / 4  # on average it is 0.75 of that: see the next


@pytest.mark.parametrize("count", [2, 3, 5, 10, 20])
def test_so_many_errors_take_so_many_readings(count):
    spent = []
    for seed in range(20):
        random = np.random.Generator(np.random.Philox(seed))
        indices = random.choice(10**6, count, replace=False).tolist()
        channel = Errors((1000, 1000), dict.fromkeys(indices, 1e-3), key=seed)
        assert found_by(channel) == (channel.errors, True)
        spent.append(channel.readings)
    assert 4 * np.mean(spent) <= 25 * count + 20


def test_an_index_that_several_errors_spell_is_refuted():
    """Two errors along two axes, of equal weight: the digits spell the entry between them, which is right."""
    key, shape = 5, (1, 9)
    v = directions.expand(key, 0, 9)
    channel = Errors(shape, {2: 1e-3 / v[2], 6: 1e-3 / v[6]})
    assert bucket(channel, channel.read({})).lone(channel) == 4
    assert found_by(channel) == (channel.errors, True)


def test_the_errors_of_a_row_spell_the_row():
    channel = Errors((30, 40), {3 * 40 + c: 1e-3 * (1 + c) for c in range(40)})
    row, column = bucket(channel, channel.read({})).coordinates()
    assert row == 3
    assert column is None


@given(st.tuples(*[st.tuples(st.integers(0, 29), st.integers(1, 12))] * 2), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_block_is_outlined(sides, seed):
    box = [(low, min(30, low + length)) for low, length in sides]
    random = np.random.Generator(np.random.Philox(seed))
    errors = {30 * r + c: 1 + random.uniform() for r in range(*box[0]) for c in range(*box[1])}
    channel = Errors((30, 30), errors, key=seed)
    assert hull(channel, [random.choice(list(errors))]) == box
    assert channel.readings <= 4 * 2 * math.log2(30)


@pytest.mark.parametrize("count", [1, 30, 3000])
def test_one_of_many_is_singled_out(count):
    random = np.random.Generator(np.random.Philox(count))
    errors = dict(zip(random.choice(10**6, count, replace=False).tolist(), random.uniform(1, 2, count), strict=True))
    channel = Errors((1000, 1000), errors)
    singled = single(channel, 0)
    assert singled is not None
    assert singled[0] in errors
    assert channel.readings <= 5 * math.log2(count + 1) + 12

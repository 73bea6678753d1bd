"""Gradients at ties and kinks: those that no subgradient can be are wrong, those that some convention gives are not."""

import numpy as np
import pytest

from gradcheck.examine import Examination

A = np.random.Generator(np.random.Philox(3)).normal(size=(6, 5))


def examined(bench, x, value, gradient, seed=0):
    session = bench.session({"x": x}, lambda a: value(a["x"]), lambda a: {"x": gradient(a["x"])}, seed)
    (found,) = Examination("unroll", session, None, None, 0.0).run().checks
    return found.check


def highest(x):
    return float(np.max(A @ x))


def shared_out(weights):
    """The reverse rule of `highest` that hands the winners what `weights` (how many -> their shares) says."""

    def gradient(x):
        y = A @ x
        won = y >= y.max() - 1e-12
        shares = np.zeros(6)
        shares[won] = weights(int(won.sum()))
        return shares @ A

    return gradient


def tied(count):
    """A point at which the first `count` of the six win together."""
    levels = np.array([1.0] * count + [-1.0] * (6 - count))
    return np.linalg.lstsq(A[:count], levels[:count], rcond=None)[0]


def first(count):
    return [1.0] + [0.0] * (count - 1)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_a_rule_that_pays_every_winner_in_full_is_wrong(bench, count, seed):
    assert highest(tied(count)) == pytest.approx(1.0)
    found = examined(bench, tied(count), highest, shared_out(lambda n: [1.0] * n), seed)
    assert (found.verdict, found.codes) == ("mismatch", ("GC201",))


@pytest.mark.parametrize("weights", [first, lambda n: [1 / n] * n], ids=["the first", "equal shares"])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_a_rule_that_shares_what_arrives_among_the_winners_is_none(bench, weights, count, seed):
    found = examined(bench, tied(count), highest, shared_out(weights), seed)
    assert (found.verdict, found.codes) == ("inconclusive", ("GC402",))


@pytest.mark.parametrize("at_zero", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kinks", [1, 2, 5, 20])
def test_every_convention_for_the_slope_of_relu_at_zero_is_one(bench, at_zero, kinks):
    """Each of the kinks has a weight of either sign, so that the slope along a direction need not lie between its two sides."""
    for seed in range(10):
        numbers = np.random.Generator(np.random.Philox(seed))
        x, c, w = numbers.normal(size=30), numbers.normal(size=30), numbers.uniform(0.5, 1.5, size=30)
        x[:kinks] = 0.0
        found = examined(
            bench, x, lambda x, c=c, w=w: float(c @ np.maximum(w * x, 0)),
            lambda x, c=c, w=w: c * w * np.where(x == 0, at_zero, x > 0), seed,
        )  # fmt: skip
        assert found.verdict == "inconclusive", (seed, found)

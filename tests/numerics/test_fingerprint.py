"""What a wrong gradient equals is recognised from a few directional derivatives, and nothing is that it is not."""

import numpy as np
import pytest

from gradcheck._backends._worker import directions
from gradcheck.numerics.fingerprint import Fresh, Probe, name_factor, precision, recognise
from gradcheck.numerics.localise import strides

RIGHT = np.random.Generator(np.random.Philox(1)).normal(size=(5, 5))


def along(right, key, bound=1e-9, **more):
    def dot(array):
        return directions.dot(array, {"key": key, **more})

    return Probe(dot, dot(right)[0], bound)


def found_in(wrong, right=RIGHT, bound=1e-9, count=2):
    """What is recognised from so many probes and one fresh one, which is only run for a hypothesis."""
    fresh_runs = []

    def fresh(salt, axes):
        fresh_runs.append(salt)
        kept = [[strides(right.shape)[a], right.shape[a]] for a in axes]
        return along(right, 99 + len(fresh_runs), bound, **({"alike": kept} if kept else {}))

    found = recognise(wrong, [along(right, key, bound) for key in range(count)], Fresh(fresh))
    assert len(fresh_runs) <= 3
    assert found is None or fresh_runs
    return found


@pytest.mark.parametrize("factor", [-1.0, 2.0, 0.5, 1 / 12, 1.001, 1e6])
def test_a_constant_factor(factor):
    found = found_in(factor * RIGHT)
    assert found is not None
    assert (found.kind, found.factor) == ("factor", pytest.approx(factor, rel=1e-6))
    assert np.allclose(found.corrected(factor * RIGHT), RIGHT, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (RIGHT.T, "transposed"),
        (RIGHT[::-1], "reversed along axis 0"),
        (np.roll(RIGHT, 1, 1), "shifted by one along axis 1"),
    ],
)
def test_another_order(wrong, words):
    found = found_in(wrong)
    assert found is not None
    assert found.words.startswith(words)
    assert np.array_equal(found.corrected(wrong), RIGHT)


def test_a_rectangular_matrix_in_column_order():
    right = RIGHT[:3]
    found = found_in(right.reshape(-1, order="F").reshape(right.shape), right)
    assert found is not None
    assert found.words == "stored in column order"


@pytest.mark.parametrize("seed", range(50))
def test_nothing_is_seen_in_other_errors(seed):
    generator = np.random.Generator(np.random.Philox(seed))
    wrong = RIGHT.copy()
    wrong.reshape(-1)[generator.choice(25, 1 + seed % 5, replace=False)] *= 1 + generator.normal()
    assert found_in(wrong) is None


def test_small_errors_and_few_probes_prove_nothing():
    assert found_in(RIGHT * (1 + 1e-9)) is None
    assert found_in(2 * RIGHT, count=1) is None
    assert found_in(2 * RIGHT, bound=10.0) is None


@pytest.mark.parametrize(
    ("factor", "name"),
    [
        (-1, "-1 (the sign)"),
        (1 / 4, "1/batch"),
        (12, "steps"),
        (2, "2"),
        (0.37, ""),
        (1 / 12, "1/steps"),
        (1 / 48, "1/(steps*batch)"),
        (11, "steps-1"),
        (4 / 3, "batch/(batch-1)"),
        (-0.25, "-1/batch"),
        (65536, "2^16 (a loss scale)"),
    ],
)
def test_names_of_factors(factor, name):
    assert name_factor(factor, {"steps": 12, "batch": 4}) == name


def test_a_hypothesis_that_a_fresh_probe_does_not_bear_out_is_dropped():
    probes = [along(RIGHT, key) for key in range(2)]
    assert recognise(2 * RIGHT, probes, Fresh(lambda salt, axes: along(3 * RIGHT, 99))) is None


@pytest.mark.parametrize(("times", "words"), [(-1.0, "transposed"), (1 / 4, "reversed along axis 1")])
def test_a_factor_and_another_order_at_once(times, words):
    wrong = times * (RIGHT.T if words == "transposed" else RIGHT[:, ::-1])
    found = found_in(wrong)
    assert (found.kind, found.factor) == ("order", pytest.approx(times))
    assert found.words.startswith(words)
    assert np.allclose(found.corrected(wrong), RIGHT)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("name", "take"), [("sum", np.sum), ("mean", np.mean)])
def test_what_was_summed_over_an_axis_and_spread_again(axis, name, take):
    found = found_in(np.broadcast_to(take(RIGHT, axis, keepdims=True), RIGHT.shape))
    assert (found.kind, found.words) == ("sum", f"the {name} over axis {axis}")


@pytest.mark.parametrize("axis", [0, 1])
def test_entries_that_are_alike_and_no_sum_are_not_called_one(axis):
    assert found_in(np.broadcast_to(RIGHT.take([2], axis), RIGHT.shape)) is None
    assert found_in(np.broadcast_to(1.01 * RIGHT.sum(axis, keepdims=True), RIGHT.shape)) is None


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_rounding_to_a_lower_precision(name):
    found = found_in(RIGHT.astype(name).astype(np.float64), bound=1e-12)
    assert (found.kind, found.words) == ("precision", name)
    assert precision(RIGHT) == ""
    assert precision(np.round(8 * RIGHT) / 8) == ""  # few bits, as any format has them
    assert found_in(1.01 * RIGHT.astype(np.float32)).kind == "factor"

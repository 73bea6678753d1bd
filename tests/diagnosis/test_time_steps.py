"""Which steps' contributions are wrong: found in few values, and never said of a step that is right."""

from types import SimpleNamespace

import numpy as np
import pytest

from gradcheck.diagnosis.time_steps import Differences, Timeline
from gradcheck.model import TIME_OFFSET
from gradcheck.numerics.history import MISSING, NOTHING, RIGHT, UNKNOWN, WRONG, History, Search

T = 40
TINY = 1e-30


class Rollout:
    """A tanh RNN of T steps as a Session: its recurrent weights move by s_t v at step t. Reverse passes are made of tangents."""

    has_complex_step = True

    def __init__(self, seed, noise=0.0, steps=T, masked=()):
        draw = np.random.default_rng(seed)
        self.case, self.evaluations = SimpleNamespace(steps=steps), 0
        self.W = draw.normal(size=(6, 6)) * draw.uniform(0.3, 0.6)
        self.v = draw.uniform(0.5, 1, (6, 6)) * draw.choice([-1, 1], (6, 6)) * 0.4
        self.x, self.c = draw.normal(size=(steps, 3, 6)), draw.normal(size=(steps, 3, 6))
        self.h0 = np.zeros((3, 6)) if seed % 2 else draw.normal(size=(3, 6))
        self.masked, self.noise, self.draw = masked, noise, draw

    def objective(self, s, cut=None):
        """Of many s at once, [n, steps]. cut: the step whose entering carry has no tangent, as one that is detached."""
        h, total = self.h0, 0.0
        for t in range(self.case.steps):
            h = h.real if t == cut else h
            h = np.tanh(self.x[t] + h @ (self.W + (t not in self.masked) * s[:, t, None, None] * self.v))
            total = total + np.sum(h * self.c[t], axis=(1, 2))
        return total

    def offsets(self, points):
        s = np.zeros((len(points), self.case.steps))
        for row, point in zip(s, points, strict=True):
            for name, coefficient, move in point:
                assert name == TIME_OFFSET
                row[move["entry"]] += coefficient
        self.evaluations += len(points)
        return s

    def values(self, points):
        values = self.objective(self.offsets(points))
        return (values + self.noise * self.draw.normal(size=values.shape))[:, None], None

    def derivatives(self, points):
        return (self.objective(1j * TINY * self.offsets(points)).imag / TINY)[:, None]

    def contributions(self, cut=None):
        return self.objective(1j * TINY * np.eye(self.case.steps), cut).imag / TINY


def searched(rollout, analytic, exact=False, rtol=1e-8):
    """(Timeline or None, forward values in all). The total is measured along the judged probe, as in an examination."""
    truth = rollout.contributions()
    differences = Differences(rollout, 2.0**-10, exact)
    total = float(truth.sum()), 1e-9 * float(np.abs(truth).sum())
    found = Search(analytic, differences.along, rtol, 1 << 90).run(total)
    return found and Timeline(found, differences.spent(found.probes)), rollout.evaluations


def is_false(cell, analytic, truth, largest):
    """Whether a word is not borne out by the true contribution. What is below a millionth of the largest is not at stake."""
    error = abs(analytic - truth)
    if cell in (RIGHT, NOTHING):
        return error > max(0.02 * abs(truth), 2e-6 * largest) or (cell == NOTHING and abs(truth) > 2e-6 * largest)
    if cell in (WRONG, MISSING):
        return error <= 1e-13 * largest or (cell == MISSING) != (analytic == 0)
    return False


def false_cells(found, analytic, truth):
    largest = np.abs(analytic).max()
    return [(t, c) for t, c in enumerate(found.history.cells) if is_false(c, analytic[t], truth[t], largest)]


@pytest.mark.parametrize("exact", [False, True])
def test_the_boundary_of_a_missing_prefix(exact):
    for seed in range(12):
        rollout = Rollout(seed)
        truth = rollout.contributions()
        k = 1 + (seed * 7) % (T - 1)
        found, _ = searched(rollout, np.where(np.arange(T) < k, 0.0, truth), exact)
        if k == 1 and seed % 2:
            assert found is None  # the carry starts at 0: its first step contributes nothing
            continue
        assert found.history.missing_before == k, (seed, found.line())
        assert found.values <= 40
        assert found.history.cells[:2] == ((NOTHING if seed % 2 else MISSING), MISSING if k > 1 else RIGHT)
        assert false_cells(found, np.where(np.arange(T) < k, 0.0, truth), truth) == []


@pytest.mark.parametrize("exact", [False, True])
def test_the_boundary_where_the_carry_is_detached(exact):
    """The contributions before it are not zero: their share in the objective's later terms is lost."""
    for seed in range(12):
        rollout = Rollout(seed)
        truth, k = rollout.contributions(), 2 + (seed * 5) % (T - 2)
        analytic = rollout.contributions(cut=k)
        found, _ = searched(rollout, analytic, exact)
        assert found.range[1] == k - 1, (seed, found.line())
        assert found.values <= 40
        assert found.history.missing_before is None
        assert false_cells(found, analytic, truth) == []


@pytest.mark.parametrize("exact", [False, True])
def test_one_bad_step_by_the_code_of_its_index(exact):
    for seed in range(12):
        rollout = Rollout(seed)
        truth, t = rollout.contributions(), 1 + (seed * 11) % (T - 1)
        analytic = truth.copy()
        analytic[t] *= (0.0, 0.9, -1.0)[seed % 3]
        found, values = searched(rollout, analytic, exact)
        assert found.range == (t, t), (seed, found.line())
        assert found.values == values <= 24
        assert found.history.cells[t] == (MISSING if seed % 3 == 0 else WRONG)
        assert false_cells(found, analytic, truth) == []


def test_several_bad_steps_are_looked_at_one_by_one():
    """Two bad steps and one that is masked: no hypothesis covers them, and each gets its own word."""
    rollout = Rollout(4, steps=12, masked=(3,))
    truth = rollout.contributions()
    analytic = truth * np.array([1, 1, 0, 1, 1, 1, 1, 1, 0.5, 1, 1, 1])
    found, _ = searched(rollout, analytic)
    assert found.line() == "..0-....x. .."
    assert found.legend() == ". right, x wrong, 0 missing, - no contribution"
    assert found.range == (2, 8)
    assert found.history.missing_before is None


def test_a_step_that_noise_hides_is_not_judged():
    rollout = Rollout(6, noise=3e-6, steps=12)
    truth = rollout.contributions()
    truth[4] = truth[9] = 0.0  # missing, and large enough to be seen
    found, _ = searched(rollout, truth)
    assert {found.history.cells[4], found.history.cells[9]} == {MISSING}
    assert UNKNOWN in found.history.cells
    assert WRONG not in found.history.cells


def test_nothing_is_said_where_every_step_is_right():
    rollout = Rollout(2)
    found, values = searched(rollout, rollout.contributions())
    assert found is None
    assert values == 9  # the base and the noise; the total is known


def test_long_rollouts_are_looked_at_in_blocks():
    """float64[300]: no more than EACH differences beyond those that find the boundary."""
    weights = np.linspace(1, 2, 300)
    seen = []

    def differ(direction, enough):
        seen.append(enough)
        return float(direction @ weights), 1e-12

    analytic = np.where(np.arange(300) < 200, 0.5, 1.0) * weights
    history = Search(analytic, differ, 1e-8, 7).run()
    assert history.bad == list(range(200))
    assert set(history.cells[200:]) == {RIGHT}
    assert len(seen) <= 1 + 1 + 9 + 64


def test_what_counts_as_a_missing_prefix():
    def before(*cells):
        return History(cells, 0).missing_before

    assert before(NOTHING, MISSING, MISSING, RIGHT, NOTHING, RIGHT) == 3
    assert before(MISSING, WRONG, RIGHT) is None
    assert before(MISSING, UNKNOWN, MISSING, RIGHT) is None
    assert before(RIGHT, MISSING, RIGHT) is None
    assert before(MISSING, MISSING) is None
    assert before(RIGHT, RIGHT) is None

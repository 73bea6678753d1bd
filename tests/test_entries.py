"""Where a wrong gradient is wrong, through the whole examination, with the values that it took: counts are exact for a seed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gradcheck._backends._worker import directions
from gradcheck.diagnosis.scene import extent
from gradcheck.examine import Examination, float64_twin
from gradcheck.model import WHOLE, Case, Gradient, Init, Input, Objective, Role, Verdict
from gradcheck.session import tensors_of


class Layer:
    """A session: sum(c tanh(x W)) in plain numpy, with a fault in the gradient. complex: offers complex step."""

    rollout = "unroll"

    def __init__(self, shape, fault, complex_step=False, dtype="float64"):
        self.precision = dtype
        random = np.random.Generator(np.random.Philox(3))
        columns = int(np.prod(shape[1:]))
        self.x, self.c = random.normal(size=(3, shape[0])), random.normal(size=(3, columns))
        self.arrays = {"W": (random.normal(size=shape) / shape[0] ** 0.5).astype(dtype)}
        self.inputs = (Input("W", Role.PARAMETER, tuple(shape), dtype, Init("normal", 1.0, 0)),)
        nowhere = Path("nowhere")
        self.case = Case(
            "layer", nowhere, nowhere, "step", 1, 0, dtype, self.inputs, (Objective("o", "o", "sum", "all", ("W",)),),
            None, None, 0.0,
        )  # fmt: skip
        self.fault, self.evaluations, self.has_complex_step = fault, 0, complex_step
        self.tensors = tensors_of(self.arrays)

    def at(self, point, unit=1.0):
        flat = np.zeros(self.arrays["W"].size)
        for _, coefficient, move in point:
            directions.add(flat, coefficient, move)
        moved = self.arrays["W"] + unit * flat.reshape(self.arrays["W"].shape)
        return moved.reshape(self.x.shape[1], -1)

    def values(self, points):
        self.evaluations += len(points)
        terms = [self.c * np.tanh(self.x @ self.at(point)) for point in points]
        return np.array([[t.sum()] for t in terms]), np.array([[np.abs(t).sum()] for t in terms])

    def derivatives(self, points):
        self.evaluations += len(points)
        return np.array([[np.imag((self.c * np.tanh(self.x @ self.at(p, 1e-30j))).sum()) * 1e30] for p in points])

    def gradients(self, point=(), cotangent=1.0):
        gradient = self.x.T @ (self.c * (1 - np.tanh(self.x @ self.at(point)) ** 2))
        gradient = gradient.reshape(self.arrays["W"].shape).astype(self.arrays["W"].dtype)
        wrong = self.fault(gradient)
        if wrong is None:
            return {("o", "W"): Gradient("disconnected", None, "no path")}
        return {("o", "W"): Gradient("ok", (cotangent * wrong).astype(gradient.dtype))}


def examined(shape, fault, **more):
    """(check, values beyond those of a pass)."""
    check, spent = examination(shape, fault, **more)
    return check, spent - of_a_pass(shape, **more)


def examination(shape, fault, **more):
    session = Layer(shape, fault, **more)
    twin = Layer(shape, fault) if more.get("dtype") == "float32" else None
    if twin is not None:
        twin.case, twin.arrays = float64_twin(session.case, session.arrays)
    result = Examination("layer", session, twin, None, 0.0).run()
    return result.checks[0].check, result.evaluations


@cache
def of_a_pass(shape, **more):
    check, spent = examination(shape, lambda gradient: gradient, **more)
    assert check.verdict is Verdict.PASS
    return spent


def times(index, factor):
    def fault(gradient):
        gradient.flat[index] *= factor
        return gradient

    return fault


def spoilt(where, seed=1):
    """Random errors in part of the gradient."""

    def fault(gradient):
        part = gradient[where]
        gradient[where] += np.random.Generator(np.random.Philox(seed)).normal(size=part.shape) * np.abs(gradient).mean()
        return gradient

    return fault


def typical(shape, which):
    """The index of an entry of median size, some way into the tensor."""
    session = Layer(shape, lambda g: g)
    sizes = np.abs(session.gradients()["o", "W"].array.reshape(-1)[which : which + 1001])
    return which + int(np.argsort(sizes)[500])


@pytest.mark.parametrize(("factor", "which"), [(1.05, 123_456), (1.01, 900_000), (1.001, 5)])
def test_one_entry_in_a_million_is_named_in_thirty_values(factor, which):
    shape = (1000, 1000)
    index = typical(shape, which)
    check, spent = examined(shape, times(index, factor))
    assert check.worst.index == tuple(divmod(index, 1000))
    assert (check.wrong.count, check.wrong.exact) == (1, True)
    assert check.worst.analytic / check.worst.reference == pytest.approx(factor, rel=1e-3 * (factor - 1))
    assert spent <= 30


@pytest.mark.parametrize("shape", [(20_000,), (100, 200), (20, 25, 40)])
@pytest.mark.parametrize("count", [2, 3, 5, 10, 20])
def test_several_entries_are_all_named(shape, count):
    random = np.random.Generator(np.random.Philox(count))
    indices = random.choice(20_000, count, replace=False)

    sizes = random.uniform(0.1, 1, count) * random.choice([-1, 1], count)

    def fault(gradient):
        gradient.flat[indices] += np.abs(gradient).mean() * sizes
        return gradient

    check, spent = examined(shape, fault)
    assert (check.wrong.count, check.wrong.exact, check.wrong.region) == (count, True, "")
    assert {int(np.ravel_multi_index(e.index, shape)) for e in check.wrong.entries} <= set(indices.tolist())
    assert len(check.wrong.entries) == min(8, count)
    assert spent <= 1.25 * (25 * count + 20)


CASES = {
    "a row": (spoilt(np.s_[3]), "row 3", 40, 40),
    "a column": (spoilt(np.s_[:, 7]), "column 7", 30, 40),
    "a block": (spoilt(np.s_[4:7, 30:35]), "rows 4 to 6 and columns 30 to 34", 15, 250),
    "all": (spoilt(np.s_[:]), WHOLE, 1200, 64),
    "zero": (lambda g: 0 * g, WHOLE, 1200, 64),
    "disconnected": (lambda g: None, WHOLE, 1200, 64),
}


@pytest.mark.parametrize("name", CASES)
def test_a_region_is_told_in_one_line(name):
    fault, region, size, most = CASES[name]
    check, spent = examined((30, 40), fault)
    assert (check.wrong.region, check.wrong.size) == (region, size)
    assert check.worst is not None
    assert spent <= most
    assert "\n" not in extent("W", check.wrong)
    assert region in extent("W", check.wrong)


def test_a_row_by_a_factor():
    check, spent = examined((30, 40), lambda g: np.concatenate([g[:3], 1.01 * g[3:4], g[4:]]))
    assert extent("W", check.wrong) == "all of row 3 of W (40 entries); each is 1.01 times the right one"
    assert check.worst.index[0] == 3
    assert spent <= 24


def test_a_slice_of_more_axes():
    check, spent = examined((12, 9, 11), spoilt(np.s_[:, 4, :]))
    assert check.wrong.region == "the slice [:, 4, :]"
    assert spent <= 48


@pytest.mark.parametrize(("fault", "most"), [(lambda g: 1.001 * g, 24), (lambda g: -g, 24), (lambda g: g.T.copy(), 32)])
def test_a_pattern_needs_no_sample(fault, most):
    check, spent = examined((40, 40), fault)
    assert check.wrong.region == WHOLE
    assert spent <= most


def test_many_scattered_errors_are_estimated_and_not_listed():
    wrong = np.random.Generator(np.random.Philox(2)).uniform(size=(30, 40)) < 0.5
    check, spent = examined((30, 40), lambda g: np.where(wrong, 1.1 * g, g))
    assert not check.wrong.exact
    assert 200 <= check.wrong.count <= 1000
    assert len(check.wrong.entries) <= 8
    assert check.wrong.shared == "each is 1.1 times the right one"
    assert wrong[check.worst.index]
    assert spent <= 250


@pytest.mark.parametrize("more", [{"complex_step": True}, {"dtype": "float32"}])
@pytest.mark.parametrize("index", [0, 500, 1199])
def test_other_references_place_it_too(more, index):
    check, spent = examined((30, 40), times(index, 1.5), **more)
    assert check.worst.index == divmod(index, 40)
    assert check.wrong.count == 1
    assert spent <= 30

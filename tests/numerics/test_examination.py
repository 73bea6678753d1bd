"""The whole examination of functions in process: bounds, odd shapes, points where the objective is not finite, cost, memory."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from gradcheck._backends._worker import directions
from gradcheck._backends._worker.serve import Worker
from gradcheck.examine import Examination

INF = float("inf")


def examined(bench, arrays, value, gradients, seed=0, **more):
    """(checks by parameter, the examination) of one function."""
    session = bench.session(arrays, value, gradients, seed, **more)
    exam = Examination("unroll", session, None, None, 0.0)
    return {e.check.parameter: e for e in exam.run().checks}, exam


def numbers(seed, *shape):
    return np.random.Generator(np.random.Philox(seed)).normal(size=shape)


class Domain:
    """sum of x^1.5 (and a bend): a function that notices when it is evaluated outside [low, high]."""

    def __init__(self, low, high, wrong=None, by=1.01):
        self.low, self.high, self.wrong, self.by = low, high, wrong, by
        self.left = 0

    def value(self, arrays):
        x = arrays["x"].astype(float)
        self.left += bool((x < self.low).any() or (x > self.high).any())
        return float((np.sin(3 * x) + x**2 * np.cos(x[0])).sum() + np.tanh(arrays["free"]).sum())

    def gradients(self, arrays):
        x = arrays["x"].astype(float)
        slope = 3 * np.cos(3 * x) + 2 * x * np.cos(x[0])
        slope[0] -= np.sin(x[0]) * (x**2).sum()
        if self.wrong is not None:
            slope[self.wrong] *= self.by
        return {"x": slope.astype(arrays["x"].dtype), "free": 1 / np.cosh(arrays["free"]) ** 2}


DOMAINS = {  # name: (low, high, entries)
    "on the lower bound": (0.0, INF, lambda u: np.where(u < 0.3, 0.0, u)),
    "all on it": (0.0, INF, np.zeros_like),
    "on the upper bound": (-INF, 1.0, lambda u: np.where(u < 0.3, 1.0, u - 2)),
    "on both": (0.0, 1.0, lambda u: np.round(u)),
    "close to it": (0.0, INF, lambda u: 1e-9 + u),
    "a narrow domain": (2.0, 2.001, lambda u: 2.0 + 1e-3 * np.round(u)),
    "far from it": (-10.0, 10.0, lambda u: u),
    "somewhat near it": (0.0, INF, lambda u: 0.1 + u),
}


def in_domain(name, size=40, dtype=np.float64):
    low, high, make = DOMAINS[name]
    spread = np.random.Generator(np.random.Philox(len(name))).uniform(size=size)
    x = np.clip(make(spread), low, high).astype(dtype)
    return low, high, {"x": x, "free": numbers(4, 3, 2)}


@pytest.mark.parametrize("name", DOMAINS)
def test_no_point_leaves_the_bounds_and_a_right_gradient_passes(bench, name):
    low, high, arrays = in_domain(name)
    function = Domain(low, high)
    checks, exam = examined(bench, arrays, function.value, function.gradients, bounds={"x": (low, high)})
    assert function.left == 0
    assert [e.check.verdict for e in checks.values()] == ["pass", "pass"]
    assert exam.session.evaluations <= 4 * 2 + 16


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize("entry", [0, 17])
def test_a_wrong_entry_is_found_and_named_inside_the_bounds(bench, name, entry):
    low, high, arrays = in_domain(name)
    function = Domain(low, high, wrong=entry, by=1.05)
    checks, _ = examined(bench, arrays, function.value, function.gradients, bounds={"x": (low, high)})
    found = checks["x"].check
    assert function.left == 0
    assert found.verdict == "mismatch"
    assert found.worst.index == (entry,)
    assert found.worst.analytic == pytest.approx(1.05 * found.worst.reference, rel=1e-3)
    assert checks["free"].check.verdict == "pass"


def test_a_dead_input_on_its_bounds_is_called_dead_without_leaving_them(bench):
    left = []

    def value(arrays):
        left.append((arrays["x"] < 0).any())
        return float(np.sin(arrays["y"]).sum())

    checks, _ = examined(
        bench, {"x": np.zeros(5), "y": numbers(1, 4)}, value,
        lambda a: {"x": np.zeros(5), "y": np.cos(a["y"])}, bounds={"x": (0.0, INF)},
    )  # fmt: skip
    assert checks["x"].check.codes == ("GC104",)
    assert not any(left)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, INF), (-INF, 1.0)])
@pytest.mark.parametrize("kind", [{"key": 5}, {"key": 5, "base": 7, "digit": 1}, {"entry": 3}])
def test_moves_stay_inside_to_the_last_bit_in_both_dtypes(low, high, kind):
    for dtype in (np.float32, np.float64):
        base = np.round(np.random.Generator(np.random.Philox(2)).uniform(size=3000)).astype(dtype)
        reach = 0.25
        move = {**kind, "inside": [low, high, 1.01 * reach]}
        for coefficient in (reach, 1e-3, 1e-9):
            moved = base.astype(np.float64)
            directions.add(moved, coefficient, move, base)
            assert (moved != base).any()
            assert ((moved.astype(dtype) >= low) & (moved.astype(dtype) <= high)).all()


def test_objective_that_is_nan_at_large_steps_is_judged_at_smaller_ones(bench):
    x = np.concatenate([[1e-4], np.abs(numbers(3, 20)) + 1])
    checks, _ = examined(bench, {"x": x}, lambda a: float(np.log(a["x"]).sum()), lambda a: {"x": 1 / a["x"]})
    assert checks["x"].check.verdict == "pass"


def test_objective_that_is_nan_beside_the_base_point_is_inconclusive_and_says_so(bench):
    x = np.concatenate([[0.0], np.abs(numbers(3, 20)) + 1])
    checks, exam = examined(
        bench, {"x": x, "y": numbers(1, 3)}, lambda a: float((a["x"] ** 1.5).sum() + np.sin(a["y"]).sum()),
        lambda a: {"x": 1.5 * np.sqrt(a["x"]), "y": np.cos(a["y"])},
    )  # fmt: skip
    assert checks["x"].check.verdict == "inconclusive"
    assert "not finite at any step tried" in checks["x"].check.reason
    assert "bounds" in checks["x"].check.reason
    assert checks["y"].check.verdict == "pass"
    assert exam.session.evaluations <= 1.3 * (4 * 2 + 16)


def test_a_vanishing_gradient_passes_beside_another_and_is_inconclusive_alone(bench):
    """The sum of a softmax is constant. Alone, nothing tells a derivative that vanishes from one that rounding hides."""
    x, w = numbers(1, 3, 4), numbers(2, 4, 5)

    def probabilities(a):
        z = np.exp(x @ a["w"])
        return z / z.sum(-1, keepdims=True)

    def value(a):
        return float(probabilities(a).sum() + np.sin(a.get("b", np.zeros(1))).sum())

    def slopes(a):
        p = probabilities(a)
        return {"w": x.T @ (p * (1 - p.sum(-1, keepdims=True))), **({"b": np.cos(a["b"])} if "b" in a else {})}

    checks, _ = examined(bench, {"w": w}, value, slopes)
    assert checks["w"].check.verdict == "inconclusive"
    assert checks["w"].check.codes == ("GC403",)
    assert "vanishes" in checks["w"].check.reason
    checks, _ = examined(bench, {"w": w, "b": numbers(3, 4)}, value, slopes)
    assert {e.check.verdict for e in checks.values()} == {"pass"}


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_single_entry_is_judged_and_named(bench, shape):
    x = np.full(shape, 0.7)
    for factor, verdict in ((1.0, "pass"), (1.001, "mismatch")):
        checks, _ = examined(
            bench, {"x": x}, lambda a: float(np.sin(a["x"]).sum()), lambda a, f=factor: {"x": f * np.cos(a["x"])}
        )
        assert checks["x"].check.verdict == verdict
    assert checks["x"].check.worst.index == (0,) * len(shape)


def test_a_parameter_without_entries_is_dead_and_spoils_nothing(bench):
    checks, _ = examined(
        bench, {"x": np.zeros((0, 3)), "y": numbers(1, 4)}, lambda a: float(np.sin(a["y"]).sum() + a["x"].sum()),
        lambda a: {"x": np.zeros((0, 3)), "y": np.cos(a["y"])}, bounds={"x": (0.0, 1.0)},
    )  # fmt: skip
    assert checks["x"].check.codes == ("GC104",)
    assert checks["y"].check.verdict == "pass"


def test_retries_never_exceed_the_budget_and_help_where_they_are_needed(bench):
    """Offset by 1e8 beside kinks that the first steps cross: every tensor wants further steps."""
    arrays = {f"p{k}": numbers(k, 50) for k in range(10)}

    def value(a):
        return float(sum(np.abs(v).sum() for v in a.values())) + 1e4

    checks, exam = examined(bench, arrays, value, lambda a: {n: np.sign(v) for n, v in a.items()})
    assert exam.session.evaluations <= 1.3 * (4 * 10 + 16) or not all(
        e.check.verdict == "pass" for e in checks.values()
    )
    assert not any(e.check.failing for e in checks.values())


def test_each_product_is_computed_once(bench, monkeypatch):
    expanded = []
    original = directions.expand
    monkeypatch.setattr(
        directions, "expand", lambda key, low, high: (expanded.append(key), original(key, low, high))[1]
    )
    arrays = {"x": numbers(1, 30), "y": numbers(2, 30)}
    checks, exam = examined(
        bench, arrays, lambda a: float(np.sin(a["x"]).sum() + np.sin(a["y"]).sum()),
        lambda a: {n: np.cos(v) for n, v in a.items()},
    )  # fmt: skip
    assert {e.check.verdict for e in checks.values()} == {"pass"}
    moved = (exam.session.evaluations - 2) - 4 * 2  # joint moves expand one direction an input
    assert len(expanded) == 2 * moved + 4 * 2 + 2  # and one product of each input's own direction


def test_memory_beyond_the_tensors_is_of_the_order_of_a_block(monkeypatch):
    monkeypatch.setattr(directions, "BLOCK", 1 << 13)
    block, size = 8 << 13, 1 << 20

    task = SimpleNamespace(arrays={"x": np.ones(size)})
    gradient, move = np.ones((1024, 1024)), {"key": 1, "inside": [0.0, INF, 0.25]}
    tracemalloc.start()
    try:
        directions.dot(gradient, move, task.arrays["x"])
        assert tracemalloc.get_traced_memory()[1] < 16 * block
        tracemalloc.reset_peak()
        Worker.moved(task, [["x", 0.1, move], ["x", 0.1, {"key": 2}]])
        assert tracemalloc.get_traced_memory()[1] < 8 * size + 16 * block  # the moved tensor itself
    finally:
        tracemalloc.stop()

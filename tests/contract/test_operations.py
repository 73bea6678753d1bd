"""What an adapter answers, asked directly: points, gradients at points, draws, forgetting, and settings of the process."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from gradcheck._backends._worker import directions
from gradcheck.catalog import load_backends
from gradcheck.data import arrays as seeded_arrays
from gradcheck.errors import BackendError
from gradcheck.model import Placement, Verdict

pytestmark = pytest.mark.backend

CATALOG = load_backends()
ROLLOUTS = list(CATALOG)
if not ROLLOUTS:
    raise RuntimeError("nothing to test: no backend was found")
TWINS = [  # (scan, unroll) of one framework
    (scan, unroll)
    for scan, (backend, rollout) in CATALOG.items()
    if rollout == "scan"
    for unroll, (other, kind) in CATALOG.items()
    if kind == "unroll" and other is backend
]

STEP = """
def step(xp, x, h, W, U, **noise):
    h = xp.tanh(x @ W + h @ U)
    for name in sorted(noise):
        h = h + 0.3 * noise[name]
    return {"h": h, "y": h * h}


def chatty(xp, x, h, W, U):
    import os
    import sys

    print("to standard output", "x" * 10_000)
    sys.stdout.write("no end of line")
    sys.stdout.flush()
    os.write(1, b"beneath Python's feet")
    print("to standard error", file=sys.stderr)
    return {"h": xp.tanh(x @ W + h @ U), "y": h}


def failing(xp, x, h, W, U):
    raise ValueError("the step does not like it")
"""

PLAIN = """
step: step.py:step
steps: 4
sequences: {x: {shape: [2, 3], init: normal}}
carry: {h: {shape: [2, 3], init: {normal: 0.5}}}
parameters: {W: {shape: [3, 3], init: glorot}, U: {shape: [3, 3], init: glorot}}
objectives: {hidden: {of: h, reduce: dot, wrt: [W, U, x, h]}, y: {of: y, reduce: mean, at: last, wrt: [W, h]}}
"""
NOISY = (
    PLAIN
    + "noise: {eps: {shape: [2, 3], draw: normal, placement: in_step}, u: {shape: [2, 3], draw: uniform, placement: in_step}}\n"
)

MOVES = [
    [("W", 0.01, {"key": 5})],
    [("x", -0.02, {"key": 2**100 + 7}), ("h", 0.5, {"key": 3})],
    [("U", 0.25, {"entry": 4}), ("W", 1e-3, {"entry": 0}), ("U", -0.1, {"key": 11})],
    [],
]


@pytest.fixture
def plain(bench):
    return bench.case("plain", PLAIN, step=STEP)


@pytest.fixture
def noisy(bench):
    return bench.case("noisy", NOISY, step=STEP)


def moved(arrays, point):
    """The arrays that a point stands for, moved by hand."""
    result = {name: array.copy() for name, array in arrays.items()}
    for name, coefficient, move in point:
        flat = result[name].reshape(-1)
        if "entry" in move:
            flat[move["entry"]] += coefficient
        else:
            flat += coefficient * directions.expand(move["key"], 0, flat.size)
    return result


def gradient_arrays(session, point=()):
    found = session.gradients(point)
    assert {gradient.status for gradient in found.values()} == {"ok"}
    return {pair: gradient.array for pair, gradient in found.items()}


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_a_batch_of_points_is_those_points_one_by_one(bench, plain, rollout):
    with bench.session(plain, rollout) as session:
        values, magnitudes = session.values(MOVES)
        for index, point in enumerate(MOVES):
            alone, size = session.values([point])
            np.testing.assert_array_equal(alone[0], values[index])
            np.testing.assert_array_equal(size[0], magnitudes[index])
        assert session.evaluations == 2 * len(MOVES)
    assert len({tuple(row) for row in values}) == len(MOVES)


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_a_moved_point_is_the_arrays_moved_by_hand(bench, plain, rollout):
    arrays = seeded_arrays(plain)
    with bench.session(plain, rollout) as session:
        values, _ = session.values(MOVES)
        gradients = [gradient_arrays(session, point) for point in MOVES]
    for index, point in enumerate(MOVES):
        with bench.session(plain, rollout, moved(arrays, point)) as there:
            np.testing.assert_array_equal(there.values([()])[0][0], values[index])
            for pair, array in gradient_arrays(there).items():
                np.testing.assert_array_equal(array, gradients[index][pair])


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_gradients_from_another_cotangent_are_that_many_times_the_gradients(bench, plain, rollout):
    """To the bit, as it is a power of two. It reaches the reverse pass itself: a rule that ignores it shows (test_second.py)."""
    with bench.session(plain, rollout) as session:
        ones = gradient_arrays(session, MOVES[0])
        for cotangent in (-8.0, 0.25):
            found = session.gradients(MOVES[0], cotangent=cotangent)
            for pair, array in ones.items():
                np.testing.assert_array_equal(found[pair].array, cotangent * array)
        again = gradient_arrays(session, MOVES[0])
    for pair, array in ones.items():
        np.testing.assert_array_equal(array, again[pair])


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_gradients_have_the_shapes_and_dtypes_of_their_inputs(bench, plain, rollout):
    for case in (plain, bench.case("plain-float32", PLAIN + "dtype: float32\n", step=STEP)):
        arrays = seeded_arrays(case)
        with bench.session(case, rollout) as session:
            for (_, name), array in gradient_arrays(session).items():
                assert (array.shape, array.dtype) == (arrays[name].shape, arrays[name].dtype)


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_equal_calls_give_equal_bits_though_the_step_draws(bench, noisy, rollout):
    with bench.session(noisy, rollout) as session:
        values, _ = session.values([(), (), MOVES[0], ()])
        again, _ = session.values([()])
        first, second = gradient_arrays(session), gradient_arrays(session)
        draws, more = session.draws(), session.draws()
        np.testing.assert_array_equal(session.values([()])[0], again)
    assert (values[[1, 3]] == values[0]).all()
    assert (again == values[0]).all()
    assert (values[2] != values[0]).any()
    for pair, array in first.items():
        np.testing.assert_array_equal(array, second[pair])
    for name, array in draws.items():
        np.testing.assert_array_equal(array, more[name])


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_draws_are_fresh_at_every_step_and_of_the_distribution_asked_for(bench, rollout):
    text = NOISY.replace("steps: 4", "steps: 40").replace("[2, 3], draw", "[50, 3], draw").replace("[2, 3]", "[50, 3]")
    case = bench.case("many-draws", text, step=STEP)
    with bench.session(case, rollout) as session:
        draws = session.draws()
    assert {name: (a.shape, a.dtype) for name, a in draws.items()} == dict.fromkeys(
        ("eps", "u"), ((40, 50, 3), np.dtype("float64"))
    )
    count = draws["u"].size
    assert all(np.unique(array).size == count for array in draws.values())
    assert abs(draws["eps"].mean()) < 5 / count**0.5
    assert abs(draws["eps"].std() - 1) < 5 / count**0.5
    assert abs(draws["u"].mean() - 0.5) < 5 / (12 * count) ** 0.5
    assert draws["u"].min() >= 0
    assert draws["u"].max() < 1


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_another_seed_draws_other_numbers(bench, noisy, rollout):
    other = replace(noisy, seed=noisy.seed + 1)
    with bench.session(noisy, rollout) as one, bench.session(other, rollout, seeded_arrays(noisy)) as another:
        assert (one.draws()["eps"] != another.draws()["eps"]).all()


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_draws_passed_in_as_a_sequence_give_the_same_values(bench, noisy, rollout):
    inputs = tuple(replace(i, placement=Placement.SEQUENCE) if i.placement else i for i in noisy.inputs)
    with bench.session(noisy, rollout) as session:
        draws = session.draws()
        drawn, _ = session.values([(), MOVES[0]])
    with bench.session(replace(noisy, inputs=inputs), rollout, seeded_arrays(noisy) | draws) as session:
        passed, _ = session.values([(), MOVES[0]])
    np.testing.assert_allclose(passed, drawn, rtol=1e-12)


@pytest.mark.parametrize(("scan", "unroll"), TWINS)
def test_scan_and_unroll_of_one_framework_draw_the_same_numbers(bench, noisy, scan, unroll):
    with bench.session(noisy, scan) as one, bench.session(noisy, unroll) as other:
        here, there = one.draws(), other.draws()
        np.testing.assert_allclose(one.values([()])[0], other.values([()])[0], rtol=1e-12)
    assert list(here) == list(there) == ["eps", "u"]
    for name, array in here.items():
        np.testing.assert_array_equal(array, there[name])


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_a_dropped_model_is_forgotten_and_the_others_are_not(bench, plain, noisy, rollout):
    with bench.session(noisy, rollout) as kept:
        before, _ = kept.values([()])
        with bench.session(plain, rollout) as session:
            session.values([()])
        with pytest.raises(BackendError) as caught:
            session.values([()])
        assert caught.value.code == "GC905"
        np.testing.assert_array_equal(kept.values([()])[0], before)


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_a_chatty_step_does_not_disturb_the_channel(bench, plain, rollout):
    chatty = bench.case("chatty", PLAIN.replace("step.py:step", "step.py:chatty"), step=STEP)
    with bench.session(plain, rollout) as quiet, bench.session(chatty, rollout) as session:
        np.testing.assert_allclose(session.values([()])[0][:, 0], quiet.values([()])[0][:, 0], rtol=1e-12)
        assert "beneath Python's feet" in session.worker.log.read_text(errors="replace")


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_an_error_in_the_step_names_its_line_and_leaves_the_worker_alive(bench, plain, rollout):
    broken = bench.case("failing", PLAIN.replace("step.py:step", "step.py:failing"), step=STEP)
    with bench.session(plain, rollout) as session:
        with pytest.raises(BackendError, match="the step does not like it") as caught, bench.session(broken, rollout):
            pass
        assert caught.value.code == "GC905"
        line = next(n for n, text in enumerate(STEP.splitlines(), 1) if "raise ValueError" in text)
        assert caught.value.context == f"{broken.step_file}:{line}"
        assert np.isfinite(session.values([()])[0]).all()


# --- settings of a whole process: Theano's ----------------------------------------------------------------------------

THEANO = [name for name, (backend, _) in CATALOG.items() if backend.name == "theano"]
SMALL = """
step: step.py:small
steps: 3
sequences: {x: {shape: [2], init: normal}}
carry: {h: {shape: [2], init: {normal: 0.5}}}
parameters: {w: {shape: [2], init: {value: 0.7}}}
objectives: {hidden: {of: h, wrt: [w, x, h]}}
"""
SMALL_STEP = "def small(xp, x, h, w):\n    return {'h': h * w + x}\n"


def assert_all_pass(result):
    assert result.error is None, f"{result.error} {result.error.context}"
    assert {evidence.check.verdict for evidence in result.checks} == {Verdict.PASS}


@pytest.mark.parametrize("mode", CATALOG["theano-scan"][0].options["mode"].choices)
@pytest.mark.parametrize("rollout", THEANO)
def test_every_mode_of_theano(bench, rollout, mode):
    case = bench.case(f"mode-{mode}", f"{PLAIN}options: {{theano: {{mode: {mode}}}}}\n", step=STEP)
    assert_all_pass(bench.examined(case, rollout, beside=THEANO))


@pytest.mark.parametrize("linker", CATALOG["theano-scan"][0].options["linker"].choices)
@pytest.mark.parametrize("rollout", THEANO)
def test_every_linker_of_theano_works_or_says_why_not(bench, rollout, linker):
    """Only `py` works everywhere. The others need a C++ compiler, and for a scan a Python before 3.11 (its C code is older)."""
    folder = f"linker-{linker.replace('|', '-')}"
    case = bench.case(folder, f'{SMALL}options: {{theano: {{linker: "{linker}"}}}}\n', step=SMALL_STEP)
    result = bench.examined(case, rollout, beside=THEANO)
    if linker == "py" or result.error is None:
        assert_all_pass(result)
    elif shutil.which("g++") is None:
        assert (result.error.code, "needs a C++ compiler" in result.error.message) == ("GC901", True)
    else:
        assert result.error.code == "GC905"
        assert "linker: py" in result.error.message
        assert "\n" not in result.error.message


PYTENSOR = [name for name, (backend, _) in CATALOG.items() if backend.name == "pytensor"]


@pytest.mark.parametrize("rollout", PYTENSOR)
def test_fast_run_of_pytensor(bench, rollout):
    case = bench.case("mode-of-pytensor", f"{PLAIN}options: {{pytensor: {{mode: FAST_RUN}}}}\n", step=STEP)
    assert_all_pass(bench.examined(case, rollout, beside=PYTENSOR))


def test_a_linker_of_pytensor_that_uses_c_works_or_says_why_not(bench):
    """numba, the third one, takes over a minute for this case: it was tried by hand."""
    case = bench.case("linker-of-pytensor", f"{SMALL}options: {{pytensor: {{linker: cvm}}}}\n", step=SMALL_STEP)
    result = bench.examined(case, "pytensor-unroll")
    if shutil.which("g++") is None:
        assert (result.error.code, "needs a C++ compiler" in result.error.message) == ("GC901", True)
    else:
        assert_all_pass(result)

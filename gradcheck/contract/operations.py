"""What an adapter answers, asked directly: points, gradients at points, draws, forgetting, chatter and errors of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._backends._worker import directions
from gradcheck.contract.bench import Bench, Broken, Scenario, require
from gradcheck.data import arrays as seeded_arrays
from gradcheck.errors import BackendError
from gradcheck.model import Case, Placement
from gradcheck.session import Arrays, Point, Session

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

MOVES: list[Point] = [
    [("W", 0.01, {"key": 5})],
    [("x", -0.02, {"key": 2**100 + 7}), ("h", 0.5, {"key": 3})],
    [("U", 0.25, {"entry": 4}), ("W", 1e-3, {"entry": 0}), ("U", -0.1, {"key": 11})],
    [],
]


def plain_case(bench: Bench) -> Case:
    return bench.case("plain", PLAIN, step=STEP)


def noisy_case(bench: Bench) -> Case:
    return bench.case("noisy", NOISY, step=STEP)


def moved(arrays: Arrays, point: Point) -> Arrays:
    """The arrays that a point stands for, moved by hand."""
    result = {name: array.copy() for name, array in arrays.items()}
    for name, coefficient, move in point:
        flat = result[name].reshape(-1)
        if "entry" in move:
            flat[move["entry"]] += coefficient
        else:
            flat += coefficient * directions.expand(move["key"], 0, flat.size)
    return result


def gradient_arrays(session: Session, point: Point = ()) -> dict[tuple[str, str], NDArray[Any]]:
    found = {}
    for (objective, name), gradient in session.gradients(point).items():
        require(gradient.status == "ok", f"d {objective} / d {name} is {gradient.status}: {gradient.why}")
        assert gradient.array is not None
        found[objective, name] = gradient.array
    return found


def same(here: NDArray[Any], there: NDArray[Any], what: str) -> None:
    np.testing.assert_array_equal(here, there, err_msg=what)


def a_batch_of_points_is_those_points_one_by_one(bench: Bench, rollout: str) -> None:
    with bench.session(plain_case(bench), rollout) as session:
        values, magnitudes = session.values(MOVES)
        for index, point in enumerate(MOVES):
            alone, size = session.values([point])
            same(alone[0], values[index], f"values at point {index}")
            same(size[0], magnitudes[index], f"magnitudes at point {index}")
    require(len({tuple(row) for row in values}) == len(MOVES), "values do not change with the point")


def a_moved_point_is_the_arrays_moved_by_hand(bench: Bench, rollout: str) -> None:
    case = plain_case(bench)
    arrays = seeded_arrays(case)
    with bench.session(case, rollout) as session:
        values, _ = session.values(MOVES)
        gradients = [gradient_arrays(session, point) for point in MOVES]
    for index, point in enumerate(MOVES):
        with bench.session(case, rollout, moved(arrays, point)) as there:
            same(there.values([()])[0][0], values[index], f"values at point {index}")
            for pair, array in gradient_arrays(there).items():
                same(array, gradients[index][pair], f"gradient {pair} at point {index}")


def gradients_from_another_cotangent_are_that_many_times_the_gradients(bench: Bench, rollout: str) -> None:
    """To the bit, as it is a power of two. It has to reach the reverse pass itself: a rule that ignores it shows then."""
    with bench.session(plain_case(bench), rollout) as session:
        ones = gradient_arrays(session, MOVES[0])
        for cotangent in (-8.0, 0.25):
            found = session.gradients(MOVES[0], cotangent=cotangent)
            for pair, array in ones.items():
                given = found[pair].array
                require(given is not None, f"{pair} has no gradient from the cotangent {cotangent}")
                np.testing.assert_array_equal(
                    given, cotangent * array, err_msg=f"{pair} from the cotangent {cotangent}"
                )
        again = gradient_arrays(session, MOVES[0])
    for pair, array in ones.items():
        same(array, again[pair], f"{pair}, asked again")


def gradients_have_the_shapes_and_dtypes_of_their_inputs(bench: Bench, rollout: str) -> None:
    for case in (plain_case(bench), bench.case("plain-float32", PLAIN + "dtype: float32\n", step=STEP)):
        arrays = seeded_arrays(case)
        with bench.session(case, rollout) as session:
            for (_, name), array in gradient_arrays(session).items():
                found, wanted = (array.shape, str(array.dtype)), (arrays[name].shape, str(arrays[name].dtype))
                require(found == wanted, f"the gradient by {name} is {found}, its input {wanted}")


def equal_calls_give_equal_bits_though_the_step_draws(bench: Bench, rollout: str) -> None:
    with bench.session(noisy_case(bench), rollout) as session:
        values, _ = session.values([(), (), MOVES[0], ()])
        again, _ = session.values([()])
        first, second = gradient_arrays(session), gradient_arrays(session)
        draws, more = session.draws(), session.draws()
        same(session.values([()])[0], again, "values after gradients")
    for index in (1, 3):
        same(values[index], values[0], "values within a batch")
    same(again[0], values[0], "values of another call")
    require(bool((values[2] != values[0]).any()), "values do not change with the point")
    for pair, array in first.items():
        same(array, second[pair], f"gradient {pair}")
    for name, array in draws.items():
        same(array, more[name], f"draws {name}")


def draws_are_fresh_at_every_step_and_of_the_distribution_asked_for(bench: Bench, rollout: str) -> None:
    text = NOISY.replace("steps: 4", "steps: 40").replace("[2, 3], draw", "[50, 3], draw").replace("[2, 3]", "[50, 3]")
    with bench.session(bench.case("many-draws", text, step=STEP), rollout) as session:
        draws = session.draws()
    shapes = {name: (a.shape, str(a.dtype)) for name, a in draws.items()}
    require(shapes == dict.fromkeys(("eps", "u"), ((40, 50, 3), "float64")), f"the draws are {shapes}")
    count = draws["u"].size
    require(all(np.unique(array).size == count for array in draws.values()), "draws repeat themselves")
    normal, uniform = draws["eps"], draws["u"]
    require(abs(normal.mean()) < 5 / count**0.5, f"normal draws have the mean {normal.mean():.3g}")
    require(abs(normal.std() - 1) < 5 / count**0.5, f"normal draws have the scale {normal.std():.3g}")
    require(abs(uniform.mean() - 0.5) < 5 / (12 * count) ** 0.5, f"uniform draws have the mean {uniform.mean():.3g}")
    require(uniform.min() >= 0 and uniform.max() < 1, "uniform draws leave [0, 1)")


def another_seed_draws_other_numbers(bench: Bench, rollout: str) -> None:
    noisy = noisy_case(bench)
    other = replace(noisy, seed=noisy.seed + 1)
    with bench.session(noisy, rollout) as one, bench.session(other, rollout, seeded_arrays(noisy)) as another:
        require(bool((one.draws()["eps"] != another.draws()["eps"]).all()), "draws do not change with the seed")


def draws_passed_in_as_a_sequence_give_the_same_values(bench: Bench, rollout: str) -> None:
    noisy = noisy_case(bench)
    inputs = tuple(replace(i, placement=Placement.SEQUENCE) if i.placement else i for i in noisy.inputs)
    with bench.session(noisy, rollout) as session:
        draws = session.draws()
        drawn, _ = session.values([(), MOVES[0]])
    with bench.session(replace(noisy, inputs=inputs), rollout, seeded_arrays(noisy) | draws) as session:
        passed, _ = session.values([(), MOVES[0]])
    np.testing.assert_allclose(passed, drawn, rtol=1e-12)


def scan_and_unroll_of_one_framework_draw_the_same_numbers(bench: Bench, rollout: str) -> None:
    backend, _ = bench.crew.catalog[rollout]
    noisy = noisy_case(bench)
    for twin in (name for name, kind in backend.rollouts.items() if kind == "unroll"):
        with bench.session(noisy, rollout) as one, bench.session(noisy, twin) as other:
            here, there = one.draws(), other.draws()
            np.testing.assert_allclose(one.values([()])[0], other.values([()])[0], rtol=1e-12)
        require(list(here) == list(there) == ["eps", "u"], f"draws are {list(here)} and {list(there)}")
        for name, array in here.items():
            same(array, there[name], f"draws {name} of {twin}")


def a_dropped_model_is_forgotten_and_the_others_are_not(bench: Bench, rollout: str) -> None:
    with bench.session(noisy_case(bench), rollout) as kept:
        before, _ = kept.values([()])
        with bench.session(plain_case(bench), rollout) as session:
            session.values([()])
        error = error_of(lambda: session.values([()]))
        require(error.code == "GC905", f"a forgotten model is {error.code}: {error}")
        same(kept.values([()])[0], before, "the other model's values")


def a_chatty_step_does_not_disturb_the_channel(bench: Bench, rollout: str) -> None:
    chatty = bench.case("chatty", PLAIN.replace("step.py:step", "step.py:chatty"), step=STEP)
    with bench.session(plain_case(bench), rollout) as quiet, bench.session(chatty, rollout) as session:
        np.testing.assert_allclose(session.values([()])[0][:, 0], quiet.values([()])[0][:, 0], rtol=1e-12)
        log = session.worker.log.read_text(errors="replace")
    require("beneath Python's feet" in log, "what the step prints is not in the log")


def an_error_in_the_step_names_its_line_and_leaves_the_worker_alive(bench: Bench, rollout: str) -> None:
    broken = bench.case("failing", PLAIN.replace("step.py:step", "step.py:failing"), step=STEP)
    line = next(n for n, text in enumerate(STEP.splitlines(), 1) if "raise ValueError" in text)

    def prepare() -> None:
        with bench.session(broken, rollout):
            pass

    with bench.session(plain_case(bench), rollout) as session:
        error = error_of(prepare)
        require(error.code == "GC905", f"an error in the step is {error.code}: {error}")
        require("the step does not like it" in str(error), f"the step's own words are missing: {error}")
        require(error.context == f"{broken.step_file}:{line}", f"its line is not named: {error.context!r}")
        require(bool(np.isfinite(session.values([()])[0]).all()), "the worker's other models are gone")


def error_of(call: Callable[[], object]) -> BackendError:
    try:
        call()
    except BackendError as error:
        return error
    raise Broken("what has to fail did not")


TANH = frozenset({"tanh"})
SCENARIOS = tuple(
    Scenario(check.__name__.replace("_", " "), check, TANH)
    for check in (
        a_batch_of_points_is_those_points_one_by_one,
        a_moved_point_is_the_arrays_moved_by_hand,
        gradients_from_another_cotangent_are_that_many_times_the_gradients,
        gradients_have_the_shapes_and_dtypes_of_their_inputs,
        equal_calls_give_equal_bits_though_the_step_draws,
        draws_are_fresh_at_every_step_and_of_the_distribution_asked_for,
        another_seed_draws_other_numbers,
        draws_passed_in_as_a_sequence_give_the_same_values,
        a_dropped_model_is_forgotten_and_the_others_are_not,
        a_chatty_step_does_not_disturb_the_channel,
        an_error_in_the_step_names_its_line_and_leaves_the_worker_alive,
    )
)
SCENARIOS += (
    Scenario(
        scan_and_unroll_of_one_framework_draw_the_same_numbers.__name__.replace("_", " "),
        scan_and_unroll_of_one_framework_draw_the_same_numbers,
        TANH,
        "scan",
    ),
)

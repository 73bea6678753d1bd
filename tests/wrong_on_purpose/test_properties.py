"""What must hold whatever the numbers are: scale, order, and that an error above the stated limit is found and placed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gradcheck.model import Verdict

FAULTS = ("", "complex", "scaled", "one_entry", "bad_step", "null", "new_gradient", "shifted 0.5")
SHAPES = {"W_x": (3, 4), "W_h": (4, 4), "b": (4,), "W_o": (4, 3), "x": (5, 2, 3)}
BATCH = 12  # injections in one run: a worker's start costs more than judging them


def told(report):
    """case -> {(objective, parameter): (verdict, codes)}, whatever their order."""
    return {case.name: {(c.objective, c.parameter): (c.verdict, c.codes) for c in case.checks} for case in report.cases}


@pytest.fixture(scope="module")
def unscaled(shared_bench):
    cases = [shared_bench.case(fault, name=f"case{i}") for i, fault in enumerate(FAULTS)]
    return told(shared_bench.run(*cases))


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_scaling_an_objective_changes_no_verdict(shared_bench, unscaled, scale):
    cases = [shared_bench.case(fault, name=f"case{i}", scale=scale) for i, fault in enumerate(FAULTS)]
    assert told(shared_bench.run(*cases)) == unscaled


def test_order_changes_no_verdict(bench, unscaled):
    """Neither that of the objectives, nor of their `wrt`, nor of the parameters."""
    parameters = {
        "W_o": "{shape: [hidden, input], init: glorot}",
        "b": "{shape: [hidden], init: {normal: 0.1}}",
        "W_h": "{shape: [hidden, hidden], init: glorot}",
        "W_x": "{shape: [input, hidden], init: glorot}",
    }
    objectives = {
        "out": "{of: out, reduce: mean, wrt: [x, W_o, W_x]}",
        "hidden": "{of: scaled, reduce: sum, wrt: [b, W_x, W_h]}",
    }
    cases = [
        bench.case(fault, name=f"case{i}", parameters=parameters, objectives=objectives)
        for i, fault in enumerate(FAULTS)
    ]
    assert told(bench.run(*cases)) == unscaled


@pytest.fixture(scope="module")
def limits(shared_bench):
    """(reference, parameter) -> the largest detection limit of its checks. reference: "" differences, or "complex"."""
    found = {}
    for reference in ("", "complex"):
        report = shared_bench.run(shared_bench.case(reference, name="healthy"))
        for check in report.cases[0].checks:
            key = reference, check.parameter
            found[key] = max(found.get(key, 0.0), check.detection_limit)
    return found


injections = st.lists(
    st.tuples(
        st.sampled_from(sorted(SHAPES)), st.integers(0, 10**6), st.floats(math.log(1.05), math.log(1e8)), st.booleans()
    ),
    min_size=BATCH,
    max_size=BATCH,
)


# no shrinking: an example is a whole run, and each of its injections stands for itself
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@pytest.mark.parametrize("reference", ["", "complex"])
@given(injections=injections)
def test_an_error_above_the_detection_limit_is_found_and_placed(shared_bench, limits, reference, injections):
    cases, planted = [], []
    for i, (parameter, entry, size, negative) in enumerate(injections):
        entry %= math.prod(SHAPES[parameter])
        error = math.exp(size) * limits[reference, parameter] * (-1 if negative else 1)
        cases.append(shared_bench.case(f"entry {parameter} {entry} {error!r} {reference}", name=f"planted{i}"))
        planted.append((parameter, tuple(int(k) for k in np.unravel_index(entry, SHAPES[parameter])), abs(error)))
    report = shared_bench.run(*cases)
    for case, (parameter, index, error) in zip(report.cases, planted, strict=True):
        for check in case.checks:
            if check.parameter != parameter:
                assert check.verdict is Verdict.PASS, (check, error)
            else:
                assert (check.verdict, check.codes) == (Verdict.MISMATCH, ("GC201",)), (check, error)
                assert check.worst.index == index, (check, error)
    assert report.exit_code == 1


several = st.lists(
    st.tuples(
        st.sampled_from(["W_x", "W_h", "W_o", "x"]),
        st.sets(st.integers(0, 11), min_size=2, max_size=4),
        st.lists(st.floats(math.log(100), math.log(1e4)), min_size=4, max_size=4),
    ),
    min_size=BATCH,
    max_size=BATCH,
)


@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@pytest.mark.parametrize("reference", ["", "complex"])
@given(injections=several)
def test_any_set_of_errors_is_found_and_placed(shared_bench, limits, reference, injections):
    """Where they are said to be all, they are; and no entry is named that is right."""
    cases = []
    for i, (parameter, entries, sizes) in enumerate(injections):
        errors = [f"{k}={math.exp(s) * limits[reference, parameter]!r}" for k, s in zip(entries, sizes, strict=False)]
        cases.append(shared_bench.case(f"entries {parameter} {','.join(errors)} {reference}", name=f"several{i}"))
    report = shared_bench.run(*cases)
    for case, (parameter, entries, _) in zip(report.cases, injections, strict=True):
        planted = {tuple(int(k) for k in np.unravel_index(entry, SHAPES[parameter])) for entry in entries}
        for check in (c for c in case.checks if c.parameter == parameter):
            assert check.verdict is Verdict.MISMATCH
            named = {entry.index for entry in check.wrong.entries}
            assert named <= planted, check
            assert check.worst.index in planted, check
            if check.wrong.exact:
                assert check.wrong.count == len(planted), check
                assert named == planted, check
            else:
                assert check.wrong.region, check  # a row or a column of few entries, of which most are wrong

"""Every name that xp guarantees, on every framework: values against plain NumPy, gradients against differences.

The scenarios are data of the worker package; the cases made of them here run through the same examination as a user's.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from gradcheck._backends._worker.names import XP_NAMES
from gradcheck._backends._worker.xp_battery import Scenario, scenarios
from gradcheck.catalog import load_backends
from gradcheck.evidence import BackendEvidence, Evidence
from gradcheck.model import Verdict

pytestmark = pytest.mark.backend

ROLLOUTS = load_backends()
FRAMEWORKS = {
    backend.name: next(iter(backend.rollouts)) for backend, _ in ROLLOUTS.values()
}  # its quickest rollout, below
FRAMEWORKS |= {backend.name: name for name, (backend, rollout) in ROLLOUTS.items() if rollout == "unroll"}
SCANS = [name for name, (_, rollout) in ROLLOUTS.items() if rollout == "scan"]

TABLE = scenarios()
BY_NAME = {scenario.name: scenario for scenario in TABLE}
FIRST = list({scenario.covers: scenario for scenario in reversed(TABLE)}.values())[::-1]  # one for each name
IN_ONE_CASE = 16  # a case costs some seconds, and with many objectives JAX takes long to compile it,
IN_ONE_SCAN = 6  # and Theano longer: it differentiates a scan once for each objective, with all of its outputs
ANCHOR = 0.5

# what differences cannot decide, and what the gradient must be then
STEPWISE = {"sign", "floor", "ceil", "round"}  # flat, with jumps: zero
SATURATED = {"softmax[large]", "softmax[very large]"}  # far below the rounding of the values: as good as zero
NO_64_BITS = {"float64", "int64"}  # names whose scenarios a backend may fail in a float32 case (see names.py)
RTOL = {"float64": 1e-12, "float32": 2e-5}  # of the sum of the terms' magnitudes

STEP = '''
from gradcheck_worker.namespace import dtype_name
from gradcheck_worker.xp_battery import scenarios

TABLE = {scenario.name: scenario for scenario in scenarios()}
GROUP = @GROUP@


def step(xp, anchor, **inputs):
    """One output for each scenario. The anchor is what a scenario without a gradient is differentiated by."""
    default = dtype_name(xp.zeros(1).dtype).replace("complex128", "float64")
    outputs = {}
    for key, name in GROUP.items():
        scenario = TABLE[name]
        value = scenario.function(xp, *(inputs[f"{key}_{i}"] for i in range(len(scenario.shapes))))
        wanted = scenario.expected(default)
        dtype = dtype_name(value.dtype).replace("complex128", "float64")
        narrow = default == "float32" and dtype == str(wanted.dtype).replace("64", "32")
        if value.ndim != wanted.ndim or not (dtype == wanted.dtype or narrow):
            raise TypeError(f"{name}: {value.ndim} dimensions of {dtype}, not {wanted.ndim} of {wanted.dtype}")
        outputs[key] = value if scenario.differentiable else value + anchor
    return outputs
'''

if not (FRAMEWORKS and TABLE):
    raise RuntimeError("nothing to test: no backend or no scenario was found")


def groups(table: list[Scenario], size: int) -> dict[str, list[Scenario]]:
    """The scenarios in groups of one size, by the names they begin and end with."""
    parts = [table[start : start + size] for start in range(0, len(table), size)]
    return {f"{part[0].name}..{part[-1].name}": part for part in parts}


ALL, IN_FLOAT32, IN_SCANS = groups(TABLE, IN_ONE_CASE), groups(FIRST, IN_ONE_CASE), groups(FIRST, IN_ONE_SCAN)


def battery(bench, name: str, group: list[Scenario], dtype: str, steps: int = 1, first_is_sequence: bool = False):
    """The case of a group: an objective `dot` for each scenario, by its own inputs."""
    keys = {f"s{number}": scenario for number, scenario in enumerate(group)}
    sequences, parameters = {}, {"anchor": {"shape": [], "init": {"value": ANCHOR}}}
    objectives = {}
    for key, scenario in keys.items():
        own = [f"{key}_{i}" for i in range(len(scenario.shapes))]
        for i, (one, array) in enumerate(zip(own, scenario.inputs("float64"), strict=True)):
            over_time = first_is_sequence and i == 0
            values = np.stack([array] * steps) if over_time else array
            entry = {"shape": list(array.shape), "init": {"value": values.tolist()}}
            (sequences if over_time else parameters)[one] = entry
        objectives[key] = {"of": key, "reduce": "dot", "wrt": own if scenario.differentiable else ["anchor"]}
    text = {"step": "step.py:step", "steps": steps, "dtype": dtype, "objectives": objectives}
    text |= {"sequences": sequences, "parameters": parameters}
    lines = "\n".join(f"{key}: {json.dumps(value)}" for key, value in text.items())
    step = STEP.replace("@GROUP@", repr({key: scenario.name for key, scenario in keys.items()}))
    return bench.case(name, lines, step=step), keys


def assert_right(bench, case, keys: dict[str, Scenario], result: BackendEvidence) -> None:
    """Every value is the reference's, every gradient passes; says all that is not so."""
    assert result.error is None, f"{result.error} {result.error.context}"
    wrong = []
    for (key, scenario), value in zip(keys.items(), result.values, strict=True):
        if case.dtype == "float32" and scenario.covers in NO_64_BITS:
            continue
        wanted = scenario.expected(case.dtype)
        terms = np.stack([wanted if scenario.differentiable else wanted + ANCHOR] * case.steps).astype(np.float64)
        terms = terms * bench.cotangent(case, key, terms.shape)
        if not abs(value - terms.sum()) <= RTOL[case.dtype] * np.abs(terms).sum():
            wrong.append(f"{scenario.name}: value {value!r}, not {terms.sum()!r}")
    for evidence in result.checks:
        scenario = keys[evidence.check.objective]
        if not is_right(evidence, scenario):
            check = evidence.check
            wrong.append(f"{scenario.name} by {check.parameter}: {check.verdict} {check.codes} {check.reason}")
    assert not wrong, "\n".join(wrong)
    assert len(result.checks) == sum(max(1, len(s.shapes) * s.differentiable) for s in keys.values())


def is_right(evidence: Evidence, scenario: Scenario) -> bool:
    array = evidence.gradient.array
    if scenario.covers in STEPWISE and evidence.check.codes == ("GC401",):
        return array is None or not array.any()
    if scenario.name in SATURATED and evidence.check.codes == ("GC403",):
        return bool(np.abs(array).max() < 1e-15)
    return evidence.check.verdict is Verdict.PASS or evidence.check.dead


@pytest.mark.parametrize("label", ALL)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_scenario_in_float64(bench, framework, label):
    case, keys = battery(bench, f"xp-float64-{list(ALL).index(label)}", ALL[label], "float64")
    assert_right(bench, case, keys, bench.examined(case, FRAMEWORKS[framework], beside=FRAMEWORKS.values()))


@pytest.mark.parametrize("label", IN_FLOAT32)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_name_in_float32(bench, framework, label):
    case, keys = battery(bench, f"xp-float32-{list(IN_FLOAT32).index(label)}", IN_FLOAT32[label], "float32")
    assert_right(bench, case, keys, bench.examined(case, FRAMEWORKS[framework], beside=FRAMEWORKS.values()))


@pytest.mark.parametrize("label", IN_SCANS)
@pytest.mark.parametrize("rollout", SCANS)
def test_every_name_inside_a_scan(bench, rollout, label):
    """The first input of each scenario is a sequence, the others are parameters."""
    name = f"xp-scan-{list(IN_SCANS).index(label)}"
    case, keys = battery(bench, name, IN_SCANS[label], "float64", steps=2, first_is_sequence=True)
    assert_right(bench, case, keys, bench.examined(case, rollout, beside=SCANS))


def test_the_groups_hold_every_scenario_and_every_name():
    assert [s.name for group in ALL.values() for s in group] == [s.name for s in TABLE]
    for table in (IN_FLOAT32, IN_SCANS):
        assert [s.covers for group in table.values() for s in group] == list(XP_NAMES)

"""Every name that xp guarantees, on every framework: values against plain NumPy, gradients against differences.

The uses are data of the worker package; the cases made of them here run through the same examination as a user's.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from types import CodeType
from typing import Any

import numpy as np

from gradcheck._backends._worker.names import XP_NAMES
from gradcheck._backends._worker.xp_battery import Scenario as Use
from gradcheck._backends._worker.xp_battery import scenarios
from gradcheck.contract.bench import Bench, Scenario, require
from gradcheck.evidence import BackendEvidence, Evidence
from gradcheck.model import Case, Verdict

TABLE = scenarios()
IN_ONE_CASE = 16  # a case costs some seconds, and with many objectives JAX takes long to compile it,
IN_ONE_SCAN = 6  # and Theano longer: it differentiates a scan once for each objective, with all of its outputs
ANCHOR = 0.5

# what differences cannot decide, and what the gradient must be then
STEPWISE = {"sign", "floor", "ceil", "round"}  # flat, with jumps: zero
SATURATED = {"softmax[large]", "softmax[very large]"}  # far below the rounding of the values: as good as zero
NO_64_BITS = {"float64", "int64"}  # names whose scenarios a backend may fail in a float32 case (see names.py)
RTOL = {"float64": 1e-12, "float32": 2e-5}  # of the sum of the terms' magnitudes

STEP = '''
from gradcheck_worker.xp_battery import scenarios

TABLE = {scenario.name: scenario for scenario in scenarios()}
GROUP = @GROUP@


def step(xp, anchor, **inputs):
    """One output for each scenario. The anchor is what a scenario without a gradient is differentiated by."""
    default = named(anchor.dtype)
    outputs = {}
    for key, name in GROUP.items():
        scenario = TABLE[name]
        try:
            value = scenario.function(xp, *(inputs[f"{key}_{i}"] for i in range(len(scenario.shapes))))
        except Exception as error:
            error.args = (f"{name}: {error}",)
            raise
        wanted = scenario.expected(default)
        dtype = named(value.dtype)
        narrow = default == "float32" and dtype == str(wanted.dtype).replace("64", "32")
        if value.ndim != wanted.ndim or not (dtype == wanted.dtype or narrow):
            raise TypeError(f"{name}: {value.ndim} dimensions of {dtype}, not {wanted.ndim} of {wanted.dtype}")
        outputs[key] = value if scenario.differentiable else value + anchor
    return outputs


def named(dtype):
    """A dtype's name, without the framework's in front; a complex step's stands for the float's."""
    return str(dtype).rpartition(".")[2].replace("complex128", "float64")
'''


def battery(names: Collection[str] = XP_NAMES) -> tuple[Scenario, ...]:
    """A scenario for each group of uses. names: those of xp that the backend has; uses of others are left out."""
    table = [use for use in TABLE if needs(use) <= set(names)]
    first = list({use.covers: use for use in reversed(table)}.values())[::-1]  # one for each name
    made = [
        Scenario(f"xp {label} in {dtype}", partial(holds, name, group, dtype, 1, False), rollouts="one")
        for dtype, uses in (("float64", table), ("float32", first))
        for name, label, group in groups(f"xp-{dtype}", uses, IN_ONE_CASE)
    ]
    made += [
        Scenario(f"xp {label} inside a scan", partial(holds, name, group, "float64", 2, True), rollouts="scan")
        for name, label, group in groups("xp-scan", first, IN_ONE_SCAN)
    ]
    return tuple(made)


def groups(name: str, table: Sequence[Use], size: int) -> Iterator[tuple[str, str, Sequence[Use]]]:
    """(a name, a label, uses) of one size; the label has the first and the last of them."""
    for start in range(0, len(table), size):
        part = table[start : start + size]
        yield f"{name}-{start // size}", f"{part[0].name}..{part[-1].name}", part


def needs(use: Use) -> frozenset[str]:
    """The names of xp that a use may call: whatever its function mentions, and what it was made with."""
    return mentioned(use.function) | {use.covers}


def mentioned(thing: Any) -> frozenset[str]:
    if isinstance(thing, str):
        return frozenset({thing} & set(XP_NAMES))
    if isinstance(thing, CodeType):
        return frozenset(set(thing.co_names) & set(XP_NAMES)).union(*map(mentioned, thing.co_consts))
    if not hasattr(thing, "__code__"):
        return frozenset()
    cells = [cell.cell_contents for cell in thing.__closure__ or ()]
    return frozenset().union(*map(mentioned, (thing.__code__, *cells, *(thing.__defaults__ or ()))))


def holds(
    name: str, group: Sequence[Use], dtype: str, steps: int, first_is_sequence: bool, bench: Bench, rollout: str
) -> None:
    case, keys = case_of(bench, name, group, dtype, steps, first_is_sequence)
    require_right(bench, case, keys, bench.examined(case, rollout))


def case_of(
    bench: Bench, name: str, group: Sequence[Use], dtype: str, steps: int, first_is_sequence: bool
) -> tuple[Case, dict[str, Use]]:
    """The case of a group: an objective `dot` for each use, by its own inputs.

    first_is_sequence: the first input of each use is one; the others are parameters.
    """
    keys = {f"s{number}": use for number, use in enumerate(group)}
    sequences: dict[str, Any] = {}
    parameters: dict[str, Any] = {"anchor": {"shape": [], "init": {"value": ANCHOR}}}
    objectives: dict[str, Any] = {}
    for key, use in keys.items():
        own = [f"{key}_{i}" for i in range(len(use.shapes))]
        for i, (one, array) in enumerate(zip(own, use.inputs("float64"), strict=True)):
            over_time = first_is_sequence and i == 0
            values = np.stack([array] * steps) if over_time else array
            entry = {"shape": list(array.shape), "init": {"value": values.tolist()}}
            (sequences if over_time else parameters)[one] = entry
        objectives[key] = {"of": key, "reduce": "dot", "wrt": own if use.differentiable else ["anchor"]}
    text = {"step": "step.py:step", "steps": steps, "dtype": dtype, "objectives": objectives}
    text |= {"sequences": sequences, "parameters": parameters}
    lines = "\n".join(f"{key}: {json.dumps(value)}" for key, value in text.items())
    step = STEP.replace("@GROUP@", repr({key: use.name for key, use in keys.items()}))
    return bench.case(name, lines, step=step), keys


def require_right(bench: Bench, case: Case, keys: dict[str, Use], result: BackendEvidence) -> None:
    """Every value is the reference's, every gradient passes; says all that is not so."""
    require(result.error is None, f"{result.error} {result.error.context if result.error else ''}")
    assert result.values is not None
    wrong = []
    for (key, use), value in zip(keys.items(), result.values, strict=True):
        if case.dtype == "float32" and use.covers in NO_64_BITS:
            continue
        wanted = use.expected(case.dtype)
        terms = np.stack([wanted if use.differentiable else wanted + ANCHOR] * case.steps).astype(np.float64)
        terms = terms * bench.cotangent(case, key, terms.shape)
        if not abs(value - terms.sum()) <= RTOL[case.dtype] * np.abs(terms).sum():
            wrong.append(f"{use.name}: value {value!r}, not {terms.sum()!r}")
    for evidence in result.checks:
        use = keys[evidence.check.objective]
        if not is_right(evidence, use):
            check = evidence.check
            wrong.append(f"{use.name} by {check.parameter}: {check.verdict} {' '.join(check.codes)} {check.reason}")
    require(not wrong, "\n".join(wrong))
    count = sum(max(1, len(use.shapes) * use.differentiable) for use in keys.values())
    require(len(result.checks) == count, f"{len(result.checks)} gradients, not {count}")


def is_right(evidence: Evidence, use: Use) -> bool:
    array = evidence.gradient.array
    if use.covers in STEPWISE and evidence.check.codes == ("GC401",):
        return array is None or not array.any()
    if use.name in SATURATED and evidence.check.codes == ("GC403",):
        return array is not None and bool(np.abs(array).max() < 1e-15)
    return evidence.check.verdict is Verdict.PASS or evidence.check.dead

"""What a backend may offer beside gradients, where it does: Hessian-vector products and forward mode."""

from __future__ import annotations

import numpy as np

from gradcheck._backends._worker import directions
from gradcheck.contract.bench import Bench, Scenario, require
from gradcheck.data import arrays as seeded_arrays
from gradcheck.evidence import BackendEvidence
from gradcheck.examine import probe_key
from gradcheck.model import Case, Verdict
from gradcheck.pipeline import job
from gradcheck.session import rms

STEP = """
def curved(xp, w, b, h):
    return {"h": w**3 + b + 0.0 * h, "line": 2.0 * b}
"""
CURVED = """
step: step.py:curved
steps: 1
carry: {h: {shape: [3], init: zeros}}
parameters:
  w: {shape: [3], init: {uniform: [0.5, 1.5]}}
  b: {shape: [3], init: normal}
objectives: {h: {of: h, reduce: sum, wrt: [w, b]}, line: {of: line, reduce: sum, wrt: [b]}}
"""


def both_orders(bench: Bench, case: Case, rollout: str) -> tuple[BackendEvidence, BackendEvidence]:
    examine = job(case, rollout, seeded_arrays(case), bench.crew, order=2)
    first = bench.crew.submit(case, rollout, examine).result()
    assert first.second is not None
    return first, first.second


def a_hessian_vector_product_is_what_calculus_says(bench: Bench, rollout: str) -> None:
    """And that of a linear objective is zero, or disconnected."""
    case = bench.case("curved", CURVED, step=STEP)
    _, second = both_orders(bench, case, rollout)
    if second.error is not None and "prepare_second" in str(second.error):
        return  # it offers none
    require(second.error is None, str(second.error))
    said = {(e.check.objective, e.check.parameter): (e.check.verdict, e.check.codes) for e in second.checks}
    require(set(said.values()) == {(Verdict.PASS, ())}, f"second order: {said}")
    found = {(e.check.objective, e.check.parameter): e.gradient.array for e in second.checks}
    w = seeded_arrays(case)["w"]
    direction = rms(w) * directions.expand(probe_key(case.seed, "contraction", "w"), 0, 3)
    product = found["h", "w"]
    assert product is not None
    np.testing.assert_allclose(product, 6 * w * direction, rtol=1e-14)
    for pair in (("h", "b"), ("line", "b")):
        zero = found[pair]
        require(zero is None or not zero.any(), f"d2 {pair} is {zero}, not zero")


def forward_mode_is_what_the_reverse_pass_gives(bench: Bench, rollout: str) -> None:
    """Where there is a forward mode; one by complex step is the reference already."""
    case = bench.case("curved", CURVED, step=STEP)
    key = probe_key(case.seed, "w")
    with bench.session(case, rollout) as session:
        values, none = session.tangents([[("w", 1.0, {"key": key})]])
        gradient = session.gradients()["h", "w"].array
    assert gradient is not None
    if values is None:
        require(none == "", f"forward mode fails: {none}")
        return
    np.testing.assert_allclose(values[0, 0], directions.dot(gradient, {"key": key})[0], rtol=1e-14)
    require(values[0, 1] == 0, f"an objective that does not depend on w has the derivative {values[0, 1]}")


SCENARIOS = tuple(
    Scenario(check.__name__.replace("_", " "), check)
    for check in (a_hessian_vector_product_is_what_calculus_says, forward_mode_is_what_the_reverse_pass_gives)
)

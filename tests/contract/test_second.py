"""Second opinions in the real frameworks: a reverse rule that is not linear in its cotangent, forward mode, second order."""

from __future__ import annotations

import pytest

from gradcheck.model import Verdict

pytestmark = pytest.mark.backend

RULES = """
def of_jax():
    import jax

    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, cotangent: (2 * x * (1 + 0 * cotangent),))
    return square


def of_autograd():
    from autograd.extend import defvjp, primitive

    @primitive
    def square(x):
        return x * x

    defvjp(square, lambda answer, x: lambda cotangent: 2 * x * (1 + 0 * cotangent))
    return square


def of_theano():
    from theano.graph.basic import Apply
    from theano.graph.op import Op

    class Square(Op):
        __props__ = ()

        def make_node(self, x):
            return Apply(self, [x], [x.type()])

        def perform(self, node, inputs, outputs):
            outputs[0][0] = inputs[0] ** 2

        def grad(self, inputs, cotangents):
            return [2 * inputs[0] * (1 + 0 * cotangents[0])]

    return Square()


def framework(x):
    names = {base.__module__.partition(".")[0] for base in type(x).__mro__}
    return "theano" if "theano" in names else "jax" if names & {"jax", "jaxlib"} else "autograd"


SQUARES = {}


def ignores(xp, w, h):
    kind = framework(w)
    if kind not in SQUARES:
        SQUARES[kind] = {"theano": of_theano, "jax": of_jax, "autograd": of_autograd}[kind]()
    return {"h": SQUARES[kind](w) + 0.0 * h}
"""
IGNORES = """
step: step.py:ignores
steps: 1
carry: {h: {shape: [3], init: zeros}}
parameters: {w: {shape: [3], init: {uniform: [0.5, 1.5]}}}
objectives: {h: {of: h, reduce: sum, wrt: [w]}}
"""


@pytest.mark.parametrize("rollout", ["theano-scan", "theano-unroll", "jax-scan", "jax-unroll", "unroll"])
def test_a_rule_that_ignores_its_cotangent_is_seen_though_it_is_right_for_this_objective(bench, rollout):
    case = bench.case("ignores", IGNORES, step=RULES)
    (found,) = bench.examined(case, rollout).checks
    assert (found.check.verdict, found.check.codes) == (Verdict.MISMATCH, ("GC206",))
    assert found.comparison.verdict is Verdict.PASS  # held against differences alone nothing is wrong

"""Second opinions in the real frameworks: a reverse rule that is not linear in its cotangent, forward mode, second order."""

from __future__ import annotations

import pytest

from gradcheck._backends._worker import directions
from gradcheck.contract.second import CURVED, SCENARIOS, STEP, both_orders
from gradcheck.diagnosis import diagnose
from gradcheck.diagnosis.scene import Scene, numbers
from gradcheck.examine import probe_key
from gradcheck.laboratory import Laboratory
from gradcheck.model import Case, Verdict

pytestmark = pytest.mark.backend
ROLLOUTS = ["theano-scan", "theano-unroll", "jax-scan", "jax-unroll", "unroll"]

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


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_a_rule_that_ignores_its_cotangent_is_seen_though_it_is_right_for_this_objective(bench, rollout):
    case = bench.case("ignores", IGNORES, step=RULES)
    (found,) = bench.examined(case, rollout).checks
    assert (found.check.verdict, found.check.codes) == (Verdict.MISMATCH, ("GC206",))
    assert found.comparison.verdict is Verdict.PASS  # held against differences alone nothing is wrong


# --- second order: the Hessian-vector product ------------------------------------------------------------------------

SECOND = """
def of_jax():
    import jax

    @jax.custom_vjp
    def slope(x):
        return 2 * x

    slope.defvjp(lambda x: (2 * x, None), lambda _, cotangent: (3 * cotangent,))

    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, cotangent: (slope(x) * cotangent,))
    return square


def of_autograd():
    from autograd.extend import defvjp, primitive

    @primitive
    def slope(x):
        return 2 * x

    defvjp(slope, lambda answer, x: lambda cotangent: 3 * cotangent)

    @primitive
    def square(x):
        return x * x

    defvjp(square, lambda answer, x: lambda cotangent: slope(x) * cotangent)
    return square


def of_theano():
    from theano.graph.basic import Apply
    from theano.graph.op import Op

    class Unary(Op):
        __props__ = ()

        def make_node(self, x):
            return Apply(self, [x], [x.type()])

    class Slope(Unary):
        def perform(self, node, inputs, outputs):
            outputs[0][0] = 2 * inputs[0]

        def grad(self, inputs, cotangents):
            return [3 * cotangents[0]]

    class Square(Unary):
        def perform(self, node, inputs, outputs):
            outputs[0][0] = inputs[0] ** 2

        def grad(self, inputs, cotangents):
            return [Slope()(inputs[0]) * cotangents[0]]

    return Square()


def framework(x):
    names = {base.__module__.partition(".")[0] for base in type(x).__mro__}
    return "theano" if "theano" in names else "jax" if names & {"jax", "jaxlib"} else "autograd"


SQUARES = {}


def squared(xp, w, h):
    kind = framework(w)
    if kind not in SQUARES:
        SQUARES[kind] = {"theano": of_theano, "jax": of_jax, "autograd": of_autograd}[kind]()
    return {"h": SQUARES[kind](w) + 0.0 * h}


def no_rule(xp, w, h):
    from autograd.extend import defvjp, primitive

    slope = primitive(lambda x: 3 * x**2)
    cube = primitive(lambda x: x**3)
    defvjp(cube, lambda answer, x: lambda cotangent: slope(x) * cotangent)
    return {"h": cube(w) + 0.0 * h}


def converts(xp, w, h):
    import numpy
    from autograd.extend import defvjp, primitive

    cube = primitive(lambda x: x**3)
    defvjp(cube, lambda answer, x: lambda cotangent: numpy.array([3 * float(v) ** 2 for v in x]) * cotangent)
    return {"h": cube(w) + 0.0 * h}
"""


@pytest.mark.parametrize("rollout", ROLLOUTS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_contract(bench, scenario, rollout):
    scenario.run(bench, rollout)


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_every_shipped_backend_offers_second_order_and_forward_mode_or_complex_step(bench, rollout):
    case = bench.case("curved", CURVED, step=STEP)
    _, second = both_orders(bench, case, rollout)
    assert second.error is None
    with bench.session(case, rollout) as session:
        values, _ = session.tangents([[("w", 1.0, {"key": 1})]])
        assert (values is not None) != session.has_complex_step


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_a_rule_that_is_right_but_whose_own_rule_is_wrong_is_found_at_second_order_alone(bench, rollout):
    case = bench.case("squared", IGNORES.replace("ignores", "squared"), step=SECOND)
    first, second = both_orders(bench, case, rollout)
    assert {(e.check.verdict, e.check.codes) for e in first.checks} == {(Verdict.PASS, ())}
    (found,) = second.checks
    assert (found.check.verdict, found.check.codes, found.check.order) == (Verdict.MISMATCH, ("GC201",), 2)
    assert found.check.worst.analytic == pytest.approx(1.5 * found.check.worst.reference, rel=1e-6)
    (finding,) = diagnose(Scene(case, {}, [first], Laboratory(bench.crew, 60.0), second=[second]), use_expect=True)
    assert (finding.code, finding.order, finding.blame.text) == ("GC201", 2, "def squared(xp, w, h):")


@pytest.mark.parametrize(("name", "words"), [("no_rule", "not defined"), ("converts", "ArrayBox")])
def test_a_rule_that_cannot_be_differentiated_again_is_told_in_the_frameworks_words(bench, name, words):
    case = bench.case(name, IGNORES.replace("ignores", name), step=SECOND)
    first, second = both_orders(bench, case, "unroll")
    assert [e.check.verdict for e in first.checks] == [Verdict.PASS]
    (found,) = second.checks
    assert (found.check.verdict, found.check.codes) == (Verdict.NULL, ("GC102",))
    assert words in found.check.reason


# --- forward mode against reverse mode --------------------------------------------------------------------------------

DETACHED = """
def detached(xp, w, h):
    return {"h": xp.sin(w) * xp.stop_gradient(w) + 0.0 * h}


def kinked(xp, w, h):
    return {"h": xp.abs(w) + w**3 + 0.0 * h}
"""


def along_a_direction(bench, case: Case, rollout: str):
    """(forward mode, the reverse pass, the tangents' words) along one direction of all inputs."""
    point = [(name, 1.0, {"key": probe_key(case.seed, name)}) for name in ("w",)]
    with bench.session(case, rollout) as session:
        values, none = session.tangents([point])
        gradient = session.gradients()["h", "w"].array
    return values, directions.dot(gradient, point[0][2])[0], none


@pytest.mark.parametrize(("rollout", "words"), [("jax-unroll", "custom_vjp"), ("theano-unroll", "NotImplementedError")])
def test_a_rule_without_a_forward_half_is_told_in_the_frameworks_words(bench, rollout, words):
    case = bench.case("no_forward", IGNORES, step=RULES)
    values, _, none = along_a_direction(bench, case, rollout)
    assert values is None
    assert words in none


@pytest.mark.parametrize("rollout", ["theano-unroll", "jax-unroll", "unroll"])
def test_a_wrong_gradient_says_what_forward_mode_gives(bench, rollout):
    """A stopped gradient is stopped in both modes; complex step goes through it."""
    case = bench.case("detached", IGNORES.replace("ignores", "detached"), step=DETACHED)
    (found,) = bench.examined(case, rollout).checks
    assert found.check.verdict is Verdict.MISMATCH
    if rollout == "unroll":
        assert found.check.forward_mode == found.comparison.error / found.comparison.scale > 0.01
        assert "forward_mode" not in found.notes
    else:
        assert found.check.forward_mode < 1e-14
        rows = dict(numbers(found))
        assert "agrees with the reverse pass to" in rows["forward mode"]
        assert "not with the differences" in rows["forward mode"]


@pytest.mark.parametrize("rollout", ["theano-unroll", "jax-unroll"])
def test_where_differences_cannot_tell_the_two_modes_are_held_against_each_other(bench, rollout):
    text = IGNORES.replace("ignores", "kinked").replace("{uniform: [0.5, 1.5]}", "{value: [0.0, 1.0, 2.0]}")
    (found,) = bench.examined(bench.case("kinked", text, step=DETACHED), rollout).checks
    assert (found.check.verdict, found.check.codes) == (Verdict.INCONCLUSIVE, ("GC402",))
    assert found.check.forward_mode < 1e-14
    assert "differences cannot tell" in dict(numbers(found))["forward mode"]

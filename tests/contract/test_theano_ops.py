"""Theano looked into op by op: wrong rules named and right ones cleared, missing rules, births of NaN, stops, draws.

One worker serves the whole module. Steps call Theano themselves, so what is found here is found in a user's own graph too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradcheck._backends._worker import directions
from gradcheck.case_file import load
from gradcheck.data import arrays as seeded_arrays
from gradcheck.examine import Examination
from gradcheck.model import Verdict
from gradcheck.session import Focus

pytestmark = pytest.mark.backend

CASES = Path(__file__).parents[2] / "cases"

STEPS = """
import numpy as np
import theano
import theano.tensor as T
from theano.ifelse import ifelse
from theano.scan.utils import until
from theano.tensor.random.utils import RandomStream


class Affine(theano.graph.op.Op):
    __props__ = ()

    def make_node(self, v):
        return theano.graph.basic.Apply(self, [v], [v.type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.asarray(2.0 * inputs[0] + 0.5)

    def grad(self, inputs, cotangents):
        return [2.0 * cotangents[0] + 0.5]


class Square(theano.scalar.UnaryScalarOp):
    def impl(self, x):
        return x * x

    def grad(self, inputs, cotangents):
        return [inputs[0] * cotangents[0]]


@theano.compile.ops.as_op(itypes=[T.dmatrix], otypes=[T.dmatrix])
def plain(x):
    return np.cos(x)


affine = Affine()
square = T.elemwise.Elemwise(Square(theano.scalar.upgrade_to_float, name="square_of_mine"))
a, b = T.dmatrix("a"), T.dmatrix("b")
entered = theano.compile.builders.OpFromGraph([a, b], [T.tanh(a) * b])
overridden = theano.compile.builders.OpFromGraph(
    [a, b], [T.sin(a) * b], grad_overrides=lambda i, g: [g[0] * T.cos(i[0]), g[0] * T.sin(i[0])]
)


def wrong_op(xp, h, W):
    u = xp.tanh(h @ W)
    v = affine(u)  # wrong: affine
    return {"h": xp.sin(v)}


def wrong_scalar_op(xp, h, W):
    return {"h": xp.sin(square(h @ W))}  # wrong: square_of_mine


def wrong_in_nested_scan(xp, h, W):
    def inner(k, W):
        return T.tanh(affine(T.dot(k, W)))  # wrong: affine
    rows, _ = theano.scan(inner, outputs_info=[h], non_sequences=[W], n_steps=2)
    return {"h": rows[-1]}


def wrong_override(xp, h, W):
    return {"h": overridden(h @ W, h) + 0.1 * h}  # wrong: OpFromGraph


def wrong_in_branch(xp, h, W):
    u = square(h @ W)  # wrong: square_of_mine
    return {"h": ifelse(T.lt(h.sum(), 1e9), T.sin(u), T.tanh(h))}


def right_everywhere(xp, h, W):
    u = entered(h @ W, h)
    v = xp.logsumexp(u, axis=-1, keepdims=True) + xp.softmax(h, axis=-1)
    w = ifelse(T.gt(h.sum(), 1e9), T.sin(v), T.tanh(v) - 0.1 * xp.max(h, axis=0))
    return {"h": w - 0.1 * theano.grad(T.sum(T.tanh(h @ W) ** 2), h)}


def two_steps_back(xp, h, W):
    rows, _ = theano.scan(
        lambda a, k2, k1: T.tanh(k1 * a + 0.5 * k2), sequences=[W], outputs_info=[dict(initial=h[:2], taps=[-2, -1])]
    )
    return {"h": xp.tanh(h @ W) + rows[-1]}


def ends_early(xp, h, W):
    rows, _ = theano.scan(
        lambda a, k: (k * a + 0.3, until(a > 0.6)), sequences=[T.tanh(W).flatten()], outputs_info=[T.sum(h)]
    )
    return {"h": xp.tanh(h @ W) + 0.1 * T.sum(rows)}


def without_rule(xp, h, W):
    u = plain(h @ W)  # no rule: plain
    return {"h": u + T.gammainc(1.0 + h * h, 2.0)}  # no rule: gammainc


def unselected(xp, h, W):
    u = h @ W
    root = T.sqrt(u)  # born
    return {"h": T.switch(u > 0, root, 0.1 * u)}  # selects


def singular(xp, h, W):
    u = h @ W
    length = T.sqrt(T.sum((u - u) ** 2))  # born
    return {"h": xp.tanh(u) * length + 0.5 * h}


def spoilt_forward(xp, h, W):
    u = xp.tanh(h @ W)
    return {"h": xp.log(u)}  # born


def stopped(xp, h, W):
    kept = theano.gradient.disconnected_grad(h)  # stops
    return {"h": xp.tanh(kept @ W + theano.gradient.zero_grad(h) + h)}


def drawing(xp, h, W):
    stream = RandomStream(seed=3)
    eps = stream.normal(size=(3, 4))  # draws
    u = h @ W
    scaled = eps * xp.sigmoid(u)  # reads
    return {"h": 0.7 * h + xp.tanh(scaled)}
"""

CASE = """
step: step.py:{}
steps: 3
carry: {{h: {{shape: [3, 4], init: {{normal: 0.6}}}}}}
parameters: {{W: {{shape: [4, 4], init: {{normal: 0.6}}}}}}
objectives: {{o: {{of: h, reduce: dot, wrt: [W, h]}}}}
"""

ROLLOUTS = ["theano-scan", "theano-unroll"]
WRONG = {
    "wrong_op": "Affine",
    "wrong_scalar_op": "square_of_mine",
    "wrong_in_nested_scan": "Affine",
    "wrong_override": "OpFromGraph",
    "wrong_in_branch": "square_of_mine",
}


def line(function: str, mark: str) -> int:
    """The line of the step file, in a function, that ends with a mark."""
    lines = STEPS.split("\n")
    start = next(i for i, text in enumerate(lines) if text.startswith(f"def {function}("))
    return next(i for i, text in enumerate(lines[start:], start + 1) if f"# {mark}" in text)


@pytest.fixture
def session(bench, request):
    """The session of one step on one rollout: parametrized by (step, rollout)."""
    step, rollout = request.param
    with bench.session(bench.case(f"ops_{step}", CASE.format(step), step=STEPS), rollout) as prepared:
        yield prepared


def of(*steps, rollouts=ROLLOUTS):
    pairs = [(step, rollout) for step in steps for rollout in rollouts]
    return pytest.mark.parametrize("session", pairs, indirect=True, ids=["-".join(pair) for pair in pairs])


def at(session, node):
    return node["op"], Path(node["file"]).name, node["line"]


def verdicts(session, number, step):
    """The verdicts of one op alone, by the very examination that a case gets."""
    focus = Focus(session, number, step)
    try:
        return {e.check.verdict for e in Examination("the op alone", focus, None, None, 0.0).run().checks}
    finally:
        focus.close()


def wrong_ops(session):
    """Where the ops stand whose own rule does not fit at their first or last step; all others must pass."""
    found = set()
    for number, node in enumerate(session.nodes()):
        for step in {0, node["steps"] - 1}:
            seen = verdicts(session, number, step)
            assert seen <= {Verdict.PASS, Verdict.MISMATCH}, node
            if Verdict.MISMATCH in seen:
                found.add((at(session, node), node["kind"]))
    return found


def is_right(session, name, gradient):
    """Whether a gradient of the only objective agrees with a difference of the whole case along one direction."""
    move = {"key": 5}
    (up, down), _ = session.values([[(name, 1e-5, move)], [(name, -1e-5, move)]])
    slope = directions.dot(gradient.array, move)[0]
    return slope == pytest.approx(float(up[0] - down[0]) / 2e-5, rel=1e-6)


def error(gradient, other):
    return np.abs(gradient.array - other.array).max() / np.abs(other.array).max()


@of(*WRONG)
def test_the_wrong_rule_is_named_at_its_line_and_the_others_are_cleared(session):
    step = session.case.step_function
    mark = "wrong: affine" if WRONG[step] == "Affine" else f"wrong: {WRONG[step]}"
    assert wrong_ops(session) == {((WRONG[step], "step.py", line(step, mark)), "custom")}


@of(*WRONG, rollouts=["theano-scan"])
def test_with_the_wrong_rule_replaced_the_composed_gradient_is_right(session):
    """Without: the framework's own wrong gradient, so the composition is the framework's own."""
    custom = [i for i, node in enumerate(session.nodes()) if node["kind"] == "custom"]
    mended, composed, taken = session.composed(inside=custom), session.composed(), session.gradients()
    for pair, gradient in taken.items():
        assert error(composed[pair], gradient) < 1e-12
        assert error(mended[pair], gradient) > 1e-2
        assert is_right(session, pair[1], mended[pair])


@of("wrong_op", rollouts=["theano-scan"])
def test_a_rule_of_the_users_own_says_where_it_is_written(session):
    (custom,) = [node for node in session.nodes() if node["kind"] == "custom"]
    file, _, number = custom["defined"].rpartition(":")
    assert Path(file).name == "step.py"
    assert STEPS.split("\n")[int(number) - 1].strip() == "def grad(self, inputs, cotangents):"


@of("right_everywhere", "two_steps_back")
def test_right_ops_are_cleared_and_compose_to_the_frameworks_gradient(session):
    assert wrong_ops(session) == set()
    taken = session.gradients()
    for pair, gradient in session.composed().items():
        assert error(gradient, taken[pair]) < 1e-12


@of("ends_early", rollouts=["theano-scan"])
def test_right_ops_composed_wrongly_by_the_framework(session):
    """Theano's reverse rule of a scan that ends by `until` shifts its sequences; the ops' own rules, one by one, do not."""
    assert wrong_ops(session) == set()
    composed, taken = session.composed(), session.gradients()
    assert is_right(session, "W", composed["o", "W"])
    assert not is_right(session, "W", taken["o", "W"])


@of("without_rule")
def test_an_op_without_a_rule_says_so(session):
    told = {at(session, n): (n["kind"], n["why"]) for n in session.nodes() if n["why"]}
    assert set(told) == {
        ("plain", "step.py", line("without_rule", "no rule: plain")),
        ("gammainc", "step.py", line("without_rule", "no rule: gammainc")),
    }
    assert {kind for kind, _ in told.values()} == {"custom", "op"}
    assert all("no gradient for input 0" in why for _, why in told.values())
    for number, node in enumerate(session.nodes()):
        if node["why"]:
            assert verdicts(session, number, 1) == {Verdict.NULL}


@of("unselected")
def test_a_nan_is_born_on_the_side_that_is_not_selected(session):
    nodes, births = session.nodes(), session.births()
    assert {b["step"] for b in births} == {0, 1, 2}
    for birth in births:
        assert at(session, nodes[birth["node"]]) == ("sqrt", "step.py", line("unselected", "born"))
        assert at(session, nodes[birth["select"]]) == ("switch", "step.py", line("unselected", "selects"))
        assert (birth["where"], birth["zero_cotangent"], birth["cotangent"]) == ("backward", True, 0.0)
        assert birth["input"] < 0
    taken = session.composed(mend=True)
    assert all(np.isfinite(g.array).all() for g in taken.values())


@of("singular", rollouts=["theano-scan"])
def test_a_singular_point_is_no_ones_unselected_side(session):
    nodes, births = session.nodes(), session.births()
    first = births[0]
    assert at(session, nodes[first["node"]]) == ("sqrt", "step.py", line("singular", "born"))
    assert (first["step"], first["input"], first["zero_cotangent"], first["select"]) == (2, 0.0, False, None)


@of("spoilt_forward")
def test_a_value_that_is_not_finite_is_followed_to_its_first_op_and_step(session):
    (birth,) = session.births()
    assert at(session, session.nodes()[birth["node"]]) == ("log", "step.py", line("spoilt_forward", "born"))
    assert (birth["where"], birth["step"]) == ("forward", 0)
    assert birth["input"] <= 0


@of("stopped")
def test_stops_are_named_and_can_be_opened(session):
    stops = {n["op"]: n["line"] for n in session.nodes() if n["kind"] == "stop"}
    assert set(stops) == {"disconnected_grad", "zero_grad"}
    assert stops["disconnected_grad"] == line("stopped", "stops")
    taken, opened = session.gradients(), session.composed(open_stops=True)
    assert error(opened["o", "h"], taken["o", "h"]) > 1e-2


@of("drawing", rollouts=["theano-scan"])
def test_a_draw_and_what_reads_it_are_named_at_their_lines(session):
    told = session.explain_draws()
    assert told["draws"] == [{"op": "normal", "file": told["draws"][0]["file"], "line": line("drawing", "draws")}]
    rows = {r["parameter"]: (r["reads"], r["op"], r["line"]) for r in told["reads"]}
    reads = (True, "mul", line("drawing", "reads"))
    assert rows == {"W": reads, "h": reads, "": reads}


def test_which_gradients_read_a_draw_is_which_gradients_are_refused(bench):
    """Every input of the shipped RNN-VAE that draws in its step, for each of its objectives."""
    case = load(CASES / "rnn_vae_noise_in_step.yaml", bench.frameworks)
    with bench.session(case, "theano-scan") as scan, bench.session(case, "theano-unroll") as unroll:
        taken, rows = scan.gradients(), scan.explain_draws()["reads"]
        told = {(r["objective"], r["parameter"]): r for r in rows if r["parameter"]}
        assert {pair: told[pair]["reads"] for pair in taken} == {p: g.status == "null" for p, g in taken.items()}
        sigma = told["hidden", "W_sigma"]
        assert (Path(sigma["file"]).name, sigma["op"]) == ("rnn_vae.py", "mul")
        assert "xp.exp(0.5 * log_var) * eps" in Path(sigma["file"]).read_text().split("\n")[sigma["line"] - 1]
        right = unroll.gradients()  # the same draws, and no scan
        for pair, gradient in scan.composed().items():
            assert error(gradient, right[pair]) < 1e-11


def test_every_op_of_the_shipped_model_is_cleared(bench):
    case = load(CASES / "rnn_vae.yaml", bench.frameworks)
    with bench.session(case, "theano-scan", seeded_arrays(case)) as session:
        nodes = session.nodes()
        assert len(nodes) > 50
        seen = {number: verdicts(session, number, case.steps - 1) for number in range(len(nodes))}
    assert {number: found for number, found in seen.items() if found != {Verdict.PASS}} == {}

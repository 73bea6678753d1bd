"""PyTensor looked into op by op: what differs from Theano (test_theano_ops.py) in the graphs that the shared code walks.

Inner graphs have nominal inputs, which scans share; random states are carries; a matrix product is a Blockwise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradcheck._backends._worker import directions
from gradcheck.case_file import load
from gradcheck.examine import Examination
from gradcheck.model import Verdict
from gradcheck.session import Focus

pytestmark = pytest.mark.backend

CASES = Path(__file__).parents[2] / "cases"

STEPS = """
import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.ops import as_op
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.ifelse import ifelse
from pytensor.scan.utils import until
from pytensor.tensor.blockwise import Blockwise


class Affine(Op):
    __props__ = ()
    gufunc_signature = "(m)->(m)"

    def make_node(self, v):
        return Apply(self, [v], [v.type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.asarray(2.0 * inputs[0] + 0.5)

    def pullback(self, inputs, outputs, cotangents):
        return [2.0 * cotangents[0] + 0.5]


@as_op(itypes=[pt.dmatrix], otypes=[pt.dmatrix])
def plain(x):
    return np.cos(x)


affine, rows_affine = Affine(), Blockwise(Affine())
a, b = pt.dmatrix("a"), pt.dmatrix("b")
entered = OpFromGraph([a, b], [pt.tanh(a) * b])
overridden = OpFromGraph([a, b], [pt.sin(a) * b], pullback=lambda i, o, g: [g[0] * pt.cos(i[0]), g[0] * pt.sin(i[0])])


def wrong_in_nested_scan(xp, h, W):
    def inner(k, W):
        return pt.tanh(affine(k @ W))  # wrong
    rows = pytensor.scan(inner, outputs_info=[h], non_sequences=[W], n_steps=2, return_updates=False)
    return {"h": rows[-1]}


def wrong_in_rows(xp, h, W):
    return {"h": xp.sin(rows_affine(h @ W))}  # wrong


def wrong_override(xp, h, W):
    return {"h": overridden(h @ W, h) + 0.1 * h}  # wrong


def right_everywhere(xp, h, W):
    u = entered(h @ W, h)
    v = xp.logsumexp(u, axis=-1, keepdims=True) + pt.special.softmax(h, axis=-1)
    w = ifelse(pt.gt(h.sum(), 1e9), pt.sin(v), pt.tanh(v) - 0.1 * xp.max(h, axis=0))
    rows = pytensor.scan(
        lambda a, k2, k1: pt.tanh(k1 * a + 0.5 * k2), sequences=[W], outputs_info=[dict(initial=h[:2], taps=[-2, -1])],
        return_updates=False,
    )
    return {"h": w - 0.1 * pt.linalg.solve(pt.eye(4) + 0.1 * W, h.T).T + 0.1 * rows[-1]}


def ends_early(xp, h, W):
    rows = pytensor.scan(
        lambda a, k: (k * a + 0.3, until(a > 0.6)), sequences=[pt.tanh(W).flatten()], outputs_info=[pt.sum(h)],
        return_updates=False,
    )
    return {"h": xp.tanh(h @ W) + 0.1 * pt.sum(rows)}


def without_rule(xp, h, W):
    return {"h": plain(h @ W)}  # no rule


def drawing(xp, h, W):
    rng = pt.random.shared_rng(seed=3)
    rng.default_update, eps = rng.normal(size=(3, 4))  # draws
    scaled = eps * xp.sigmoid(h @ W)  # reads
    return {"h": 0.7 * h + xp.tanh(scaled)}
"""

CASE = """
step: step.py:{}
steps: 3
carry: {{h: {{shape: [3, 4], init: {{normal: 0.6}}}}}}
parameters: {{W: {{shape: [4, 4], init: {{normal: 0.6}}}}}}
objectives: {{o: {{of: h, reduce: dot, wrt: [W, h]}}}}
"""
ROLLOUTS = ["pytensor-scan", "pytensor-unroll"]
WRONG = {"wrong_in_nested_scan": "Affine", "wrong_in_rows": "Affine", "wrong_override": "OpFromGraph"}


def line(function: str, mark: str) -> int:
    """The line of the step file, in a function, that ends with a mark."""
    lines = STEPS.split("\n")
    start = next(i for i, text in enumerate(lines) if text.startswith(f"def {function}("))
    return next(i for i, text in enumerate(lines[start:], start + 1) if text.endswith(f"# {mark}"))


@pytest.fixture
def session(bench, request):
    """The session of one step on one rollout: parametrized by (step, rollout)."""
    step, rollout = request.param
    with bench.session(bench.case(f"pytensor_ops_{step}", CASE.format(step), step=STEPS), rollout) as prepared:
        yield prepared


def of(*steps, rollouts=ROLLOUTS):
    pairs = [(step, rollout) for step in steps for rollout in rollouts]
    return pytest.mark.parametrize("session", pairs, indirect=True, ids=["-".join(pair) for pair in pairs])


def wrong_ops(session):
    """Which ops' own rules do not fit at their last step; all others must pass."""
    found = set()
    for number, node in enumerate(session.nodes()):
        focus = Focus(session, number, node["steps"] - 1)
        try:
            seen = {e.check.verdict for e in Examination("the op alone", focus, None, None, 0.0).run().checks}
        finally:
            focus.close()
        assert seen <= {Verdict.PASS, Verdict.MISMATCH}, node
        if Verdict.MISMATCH in seen:
            found.add((node["op"], Path(node["file"]).name, node["line"], node["kind"]))
    return found


def error(gradient, other):
    return np.abs(gradient.array - other.array).max() / np.abs(other.array).max()


@of(*WRONG)
def test_the_wrong_pullback_is_named_at_its_line_and_the_others_are_cleared(session):
    step = session.case.step_function
    assert wrong_ops(session) == {(WRONG[step], "step.py", line(step, "wrong"), "custom")}
    custom = [i for i, node in enumerate(session.nodes()) if node["kind"] == "custom"]
    mended, composed, taken = session.composed(inside=custom), session.composed(), session.gradients()
    for pair, gradient in taken.items():
        assert error(composed[pair], gradient) < 1e-12  # composed of the ops' own rules: the framework's own wrong one
        assert error(mended[pair], gradient) > 1e-2


@of("right_everywhere")
def test_right_ops_are_cleared_and_compose_to_the_frameworks_gradient(session):
    assert wrong_ops(session) == set()
    taken = session.gradients()
    for pair, gradient in session.composed().items():
        assert error(gradient, taken[pair]) < 1e-12


@of("ends_early", rollouts=["pytensor-scan"])
def test_right_ops_composed_wrongly_by_the_framework(session):
    """PyTensor's reverse rule of a scan that ends by `until` shifts its sequences, as Theano's did; the ops' own rules do not."""
    assert wrong_ops(session) == set()
    (up, down), _ = session.values([[("W", 1e-5, {"key": 5})], [("W", -1e-5, {"key": 5})]])
    slope = pytest.approx(float(up[0] - down[0]) / 2e-5, rel=1e-6)
    composed, taken = session.composed()["o", "W"], session.gradients()["o", "W"]
    assert directions.dot(composed.array, {"key": 5})[0] == slope
    assert directions.dot(taken.array, {"key": 5})[0] != slope


@of("without_rule", rollouts=["pytensor-scan"])
def test_an_op_without_a_rule_says_so(session):
    (told,) = [n for n in session.nodes() if n["why"]]
    assert (told["op"], told["line"], told["kind"]) == ("plain", line("without_rule", "no rule"), "custom")
    assert "pullback" in told["why"]


@of("drawing", rollouts=["pytensor-scan"])
def test_a_draw_and_what_reads_it_are_named_at_their_lines(session):
    told = session.explain_draws()
    assert [(Path(d["file"]).name, d["line"]) for d in told["draws"]] == [("step.py", line("drawing", "draws"))]
    rows = {r["parameter"]: (r["reads"], r["op"], r["line"]) for r in told["reads"]}
    reads = (True, "mul", line("drawing", "reads"))
    assert rows == {"W": reads, "h": reads, "": reads}


def test_which_gradients_read_a_draw_is_which_gradients_are_refused(bench):
    """Every input of the shipped RNN-VAE that draws in its step, for each of its objectives."""
    case = load(CASES / "rnn_vae_noise_in_step.yaml", bench.frameworks)
    with bench.session(case, "pytensor-scan") as scan, bench.session(case, "pytensor-unroll") as unroll:
        taken, rows = scan.gradients(), scan.explain_draws()["reads"]
        told = {(r["objective"], r["parameter"]): r["reads"] for r in rows if r["parameter"]}
        assert {pair: told[pair] for pair in taken} == {pair: g.status == "null" for pair, g in taken.items()}
        right = unroll.gradients()  # the same draws, and no scan
        for pair, gradient in scan.composed().items():
            assert error(gradient, right[pair]) < 1e-11

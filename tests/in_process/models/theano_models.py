"""Run by test_in_process.py in an environment that has Theano-PyMC."""

import linecache
import os

import numpy as np
import pytest
import theano
import theano.tensor as tt

import gradcheck

random = np.random.default_rng(0)
W = theano.shared(0.3 * random.normal(size=(3, 3)), name="W")
s = theano.shared(random.normal(size=3), name="s")
x = tt.matrix("x")
DATA = {x: random.normal(size=(5, 3))}


def rolled_out(step):
    outputs, _ = theano.scan(step, sequences=[x], outputs_info=[tt.zeros(3)])
    return (outputs[-1] ** 2).sum()


def test_a_right_graph_passes_and_nothing_is_set():
    before = (
        W.get_value().tobytes(),
        theano.config.floatX,
        theano.config.mode,
        dict(os.environ),
        hasattr(W, "__matmul__"),
    )
    report = gradcheck.check(rolled_out(lambda x, h: tt.tanh(tt.dot(x, W) + h)), [W], DATA)
    assert [(c.backend, c.parameter, c.verdict) for c in report.checks] == [("theano-scan", "W", "pass")]
    assert report.ok
    assert before == (
        W.get_value().tobytes(), theano.config.floatX, theano.config.mode, dict(os.environ), hasattr(W, "__matmul__")
    )  # fmt: skip


def test_a_draw_in_the_step_is_found_on_its_line():
    stream = tt.random.utils.RandomStream(seed=3)

    def step(x, h):
        z = tt.dot(h, W) + tt.exp(s) * stream.normal(size=(3,))  # the draw
        return tt.tanh(x + 0.5 * h + tt.sin(z))

    with pytest.raises(gradcheck.GradientError) as caught:
        gradcheck.assert_correct({"last": rolled_out(step)}, [W, s], DATA)
    (finding,) = caught.value.report.findings
    assert (finding.code, finding.objectives, finding.parameters) == ("GC101", ("last",), ("W", "s"))
    assert finding.blame.file == "theano_models.py"
    assert finding.blame.text.endswith("# the draw")


def test_a_graph_of_a_notebook_is_blamed_on_its_cell():
    cell = "z = tt.sqrt(w)\ncost = z.sum()\n"
    name = "<ipython-input-1-0123456789ab>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    namespace = {"tt": tt, "w": theano.shared(np.zeros(2), name="w")}
    exec(compile(cell, name, "exec"), namespace)
    (finding,) = gradcheck.check(namespace["cost"], [namespace["w"]]).findings
    assert finding.code == "GC302"
    assert (finding.blame.line, finding.blame.text) == (1, "z = tt.sqrt(w)")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda: (x.sum() * W.sum(), [W]), "the model needs a value for 'x'"),
        (lambda: (tt.dot(x, W), [W], DATA), "it has to be a scalar"),
        (lambda: (W.sum(), [W], 1, 2), "after the cost and the parameters comes one {variable: array}"),
        (lambda: (W.sum(), ["W"]), "'wrt' holds str, not shared variables"),
        (lambda: (W.sum(), []), "the model has no parameter to differentiate by"),
    ],
)
def test_bad_input_ends_in_one_clear_error(arguments, words):
    with pytest.raises(gradcheck.GradientError) as caught:
        gradcheck.assert_correct(*arguments())
    assert words in " ".join(str(caught.value).split())

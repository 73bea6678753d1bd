"""Run by test_in_process.py in an environment that has PyTensor."""

import os

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import gradcheck

random = np.random.default_rng(0)
W = pytensor.shared(0.3 * random.normal(size=(3, 3)), name="W")
s = pytensor.shared(random.normal(size=3), name="s")
x = pt.matrix("x", dtype="float64")
DATA = {x: random.normal(size=(5, 3))}


def rolled_out(step, *states):
    h, *_ = pytensor.scan(
        step, sequences=[x], outputs_info=[pt.zeros(3), *states], return_list=True, return_updates=False
    )
    return (h[-1] ** 2).sum()


def test_a_right_graph_passes_and_nothing_is_set():
    def state():
        return W.get_value().tobytes(), pytensor.config.floatX, pytensor.config.traceback__limit, dict(os.environ)

    before = state()
    report = gradcheck.check(rolled_out(lambda x, h: pt.tanh(x @ W + h)), [W], DATA)
    assert [(c.backend, c.parameter, c.verdict) for c in report.checks] == [("pytensor-scan", "W", "pass")]
    assert report.ok
    assert before == state()


def test_a_draw_in_the_step_is_found_on_its_line():
    def step(x, h, rng):
        rng, draw = rng.normal(size=(3,))  # the draw
        return pt.tanh(x + 0.5 * h + pt.sin(h @ W + pt.exp(s) * draw)), rng

    with pytest.raises(gradcheck.GradientError) as caught:
        gradcheck.assert_correct({"last": rolled_out(step, pt.random.shared_rng(seed=3))}, [W, s], DATA)
    (finding,) = caught.value.report.findings
    assert (finding.code, finding.objectives, finding.parameters) == ("GC101", ("last",), ("W", "s"))
    assert finding.blame.text.endswith("# the draw")

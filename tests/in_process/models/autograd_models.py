"""Run by test_in_process.py in an environment that has JAX and autograd."""

import autograd.numpy as anp
import jax.numpy as jnp
import numpy as np
import pytest
from autograd.extend import defvjp, primitive

import gradcheck

PARAMS = {"layers": [{"W": np.linspace(-1, 1, 12).reshape(3, 4)}], "name": "a label"}
X = np.linspace(0, 1, 15).reshape(5, 3)


def loss(params, x):
    return anp.sum(anp.tanh(anp.dot(x, params["layers"][0]["W"])) ** 2)


@primitive
def bent(x):
    return np.sin(x)


defvjp(bent, lambda out, x: lambda g: 1.001 * g * np.cos(x))


def test_a_right_model_passes():
    assert gradcheck.check(lambda p: anp.sum(p[0] ** 2), iter([np.ones(2)])).ok
    (check,) = gradcheck.check(loss, PARAMS, X).checks
    assert (check.backend, check.parameter, check.verdict, check.dtype) == ("unroll", "layers[0].W", "pass", "float64")


def test_a_wrong_rule_is_seen():
    with pytest.raises(gradcheck.GradientError, match=r"the gradient is 1\.001 times the right one"):
        gradcheck.assert_correct(lambda w: anp.sum(bent(w)), np.ones(3))


def test_random_numbers_are_left_alone_and_told():
    np.random.seed(3)
    before = np.random.get_state()[1].tobytes()
    report = gradcheck.check(lambda w: anp.sum(w * np.random.normal(size=3)), np.ones(3))
    assert {c.verdict for c in report.checks} == {"nondeterministic"}
    assert np.random.get_state()[1].tobytes() == before


def test_error_handling_and_warnings_of_the_process_do_not_reach_into_the_check():
    with np.errstate(all="raise"):
        report = gradcheck.check(lambda w: anp.sum(anp.where(w > 0, anp.log(anp.abs(w)), 0.0)), np.array([1.0, 0.0]))
        assert np.geterr()["divide"] == "raise"
    assert not report.ok
    assert report.findings[0].code != "GC905"


def test_a_loss_in_plain_numpy_has_no_gradient():
    report = gradcheck.check(lambda w: np.sum(np.tanh(w) / 1), np.ones(3), name="plain")
    assert report.cases[0].name == "plain"
    assert {c.verdict for c in report.checks} <= {
        "pass",
        "null",
    }  # autograd steps in for NumPy's functions where it can


def test_the_framework_is_told_by_the_objects_or_by_the_user():
    assert gradcheck.check(loss, PARAMS, X, framework="autograd").ok
    assert (
        gradcheck.check(lambda w: jnp.sum(w**2), np.ones(3)).checks[0].backend == "jax-scan"
    )  # by what the loss gives
    with pytest.raises(gradcheck.GradientError, match="unknown framework 'jaxx', did you mean 'jax'"):
        gradcheck.assert_correct(lambda w: jnp.sum(w), np.ones(3), framework="jaxx")

"""Run by test_in_process.py in an environment that has JAX and autograd."""

import linecache
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradcheck


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


PARAMS = {"cell": [{"W": jnp.asarray(draw(3, 4))}], "b": jnp.asarray(draw(4))}
X = jnp.asarray(draw(5, 3))


def right(params, x):
    return jnp.mean(jnp.tanh(x @ params["cell"][0]["W"] + params["b"]) ** 2)


@jax.custom_vjp
def wave(x):
    return jnp.sin(x)


wave.defvjp(lambda x: (wave(x), x), lambda x, g: (g * jnp.cos(x) * (1 + 0.1 * x),))


def wrong(params, x):
    hidden = x @ params["cell"][0]["W"]
    return jnp.sum(wave(hidden + params["b"]) * X[:, :1])  # the wrong line


def line_of(words):
    with open(__file__) as lines:
        return next(number for number, line in enumerate(lines, 1) if words in line and "words" not in line)


def test_a_right_model_passes_in_its_own_precision():
    report = gradcheck.check(right, PARAMS, X)
    assert report.ok
    assert report.exit_code == 0
    assert {c.parameter: (c.backend, c.verdict, c.dtype) for c in report.checks} == {
        "cell[0].W": ("jax-scan", "pass", "float32"),
        "b": ("jax-scan", "pass", "float32"),
    }
    assert {c.reference for c in report.checks} == {"finite differences in float64"}
    (backend,) = report.backends
    assert (backend.framework, backend.framework_version, backend.environment) == ("jax", jax.__version__, "running")
    assert report.cases[0].name == "right"
    gradcheck.assert_correct(right, PARAMS, X)


def test_a_wrong_rule_is_found_on_its_line_here():
    with pytest.raises(gradcheck.GradientError) as caught:
        gradcheck.assert_correct(wrong, PARAMS, X, wrt="b")
    (finding,) = caught.value.report.findings
    assert (finding.code, finding.parameters) == ("GC206", ("b",))
    assert (finding.blame.file, finding.blame.line) == ("jax_models.py", line_of("# the wrong line"))
    assert finding.change is None
    said = str(caught.value)
    assert said.startswith("error[GC206]: the reverse rule of custom_vjp wave is wrong")
    assert "Traceback" not in said
    assert max(map(len, said.splitlines())) <= 80
    assert caught.value.report.rerun == ""
    assert '<pre class="gradcheck"' in caught.value.report._repr_html_()


def test_the_process_stays_as_it_was():
    np.random.seed(7)
    before = state()
    gradcheck.check(wrong, PARAMS, X)
    assert state() == before
    assert jnp.zeros(1).dtype == jnp.float32


def state():
    numbers = np.random.get_state()[1].tobytes()
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree_util.tree_leaves(PARAMS)]
    return jax.config.jax_enable_x64, numbers, leaves, list(sys.path), list(warnings.filters), np.geterr()


def test_where_float64_is_on_it_is_used():
    with jax.enable_x64(True):
        report = gradcheck.check(lambda w: jnp.sum(jnp.exp(w)), jnp.ones(3))
        assert jnp.zeros(1).dtype == jnp.float64
    assert {(c.dtype, c.verdict) for c in report.checks} == {("float64", "pass")}


def test_a_loop_is_scanned_and_unrolled():
    loop = {
        "step": lambda params, h, x: (jnp.tanh(x @ params["W"] + h), h),
        "carry": jnp.zeros(4),
        "inputs": X,
        "params": PARAMS["cell"][0],
        "loss": lambda h, outputs: jnp.sum(h**2),
    }
    report = gradcheck.check(loop)
    assert [(c.backend, c.verdict) for c in report.checks] == [("jax-scan", "pass"), ("jax-unroll", "pass")]


def test_losses_have_names_and_numpy_parameters_are_as_good():
    report = gradcheck.check({"a": lambda w: jnp.sum(w**2), "b": lambda w: jnp.sum(w**3)}, np.ones(3), framework="jax")
    assert [(c.objective, c.backend) for c in report.checks] == [("a", "jax-scan"), ("b", "jax-scan")]
    assert gradcheck.check(lambda w: jnp.sum(w**2), np.ones(3)).checks[0].backend == "jax-scan"


def test_a_model_of_a_notebook_is_blamed_on_its_cell():
    cell = "def loss(w):\n    return jnp.sum(jnp.sqrt(w))\n"
    name = "<ipython-input-1-0123456789ab>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    namespace = {"jnp": jnp}
    exec(compile(cell, name, "exec"), namespace)
    (finding,) = gradcheck.check(namespace["loss"], jnp.zeros(2)).findings
    assert finding.code == "GC302"
    assert (finding.blame.line, finding.blame.text) == (2, "return jnp.sum(jnp.sqrt(w))")


class Plain:
    pass


BAD = {
    "not a scalar": ((lambda w: w * 2, jnp.ones(3)), "objective 'loss' has shape (3,): it has to be a scalar"),
    "raises": ((lambda w: 1 / 0, jnp.ones(3)), "ZeroDivisionError: division by zero"),
    "exits": ((lambda w: sys.exit(3), jnp.ones(3)), "the step called sys.exit(3)"),
    "no parameters": ((lambda p: jnp.ones(()), {}), "the model has no parameter to differentiate by"),
    "not given": ((right,), "no parameters: gradcheck.check(loss, params, ...)"),
    "half precision": ((lambda w: jnp.sum(w), jnp.ones(3, "float16")), "parameter 'params' is float16"),
    "integers": ((lambda w: jnp.sum(w * 1.0), jnp.ones(3, int)), "the model has no parameter to differentiate by"),
    "no framework": ((lambda w: Plain(), np.ones(3)), "cannot tell which framework the model belongs to"),
    "no model": (({"a": 1},), "cannot tell which framework the model belongs to: it holds no objects of any"),
    "no loss": ((None, jnp.ones(3)), "'loss' is empty: it has to be a function"),
    "no such parameter": ((right, PARAMS, X, "V"), "wrt: no parameter matches 'V'"),
    "no such key": (({"loss": right, "params": PARAMS, "data": X},), "has the unknown key 'data'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_clear_error(name):
    (loss, *params), words = BAD[name]
    *arguments, wrt = params if name == "no such parameter" else [*params, ()]
    with pytest.raises(gradcheck.GradientError) as caught:
        gradcheck.assert_correct(loss, *arguments, wrt=wrt)
    said = " ".join(str(caught.value).split())
    assert words in said
    assert "Traceback" not in said
    assert caught.value.__cause__ is None

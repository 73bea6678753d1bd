"""Native cases: models in a framework's own words, one small model per kind of gradient bug, and the clean controls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "cases" / "native"
SCAN, UNROLL = "scan", "unroll"

# case -> {(rollout, parameter): (verdict, the observed code)}; "" where a check passes without a word
TABLE = {
    "theano-null-through-draw": {(SCAN, "log_vol"): ("null", "GC101"), (UNROLL, "log_vol"): ("pass", "")},
    "theano-silent-draw": {
        (SCAN, "mean"): ("mismatch", "GC201"),
        (SCAN, "spread"): ("null", "GC101"),
        (SCAN, "back"): ("null", "GC101"),
        (UNROLL, "mean"): ("pass", ""),
        (UNROLL, "spread"): ("pass", ""),
        (UNROLL, "back"): ("pass", ""),
    },
    "theano-noise-in-sin": {(SCAN, "gain"): ("null", "GC101")},
    "theano-truncated": {(SCAN, "weight"): ("mismatch", "GC201"), (UNROLL, "weight"): ("pass", "")},
    "theano-wrong-op": {(SCAN, "rate"): ("mismatch", "GC201"), (UNROLL, "rate"): ("mismatch", "GC201")},
    "theano-switch-nan": {(SCAN, "x"): ("nonfinite", "GC301")},
    "theano-no-rule": {(SCAN, "shape"): ("null", "GC102")},
    "theano-sampler-parameter": {(SCAN, "mu"): ("null", "GC102")},
    "theano-captured": {(SCAN, "square"): ("disconnected", "GC103"), (UNROLL, "square"): ("pass", "")},
    "theano-additive-noise": {(SCAN, "weight"): ("pass", ""), (UNROLL, "weight"): ("pass", "")},
    "theano-noise-in-tanh": {(SCAN, "weight"): ("pass", ""), (UNROLL, "weight"): ("pass", "")},
    "theano-copy-in-scan": {
        (SCAN, "both"): ("disconnected", "GC103"),
        (SCAN, "left"): ("pass", ""),
        (SCAN, "right"): ("pass", ""),
    },
    "theano-copy-in-part": {(SCAN, "cube"): ("mismatch", "GC201"), (SCAN, "root"): ("pass", "")},
    "theano-copy-clean": {(SCAN, name): ("pass", "") for name in ("given", "apart", "root")},
    "theano-truncated-inside": {(SCAN, "gain"): ("mismatch", "GC201")},
    "theano-gamma-draw": {(SCAN, "shape"): ("null", "GC102"), (SCAN, "rate"): ("null", "GC102")},
    "theano-keep-rate": {(SCAN, "logit"): ("null", "GC102"), (UNROLL, "logit"): ("null", "GC102")},
    "theano-kept-units": {(SCAN, "weight"): ("pass", ""), (UNROLL, "weight"): ("pass", "")},
    "theano-shared-mask": {(SCAN, "weight"): ("pass", "GC701"), (UNROLL, "weight"): ("pass", "GC701")},
    "theano-coin": {(SCAN, "bias"): ("inconclusive", "GC401")},
    "theano-bootstrap": {(SCAN, "weight"): ("pass", "GC703")},
    "theano-lazy-overflow": {(SCAN, "level"): ("nonfinite", "GC301")},
    "theano-two-outputs": {(SCAN, "turn"): ("mismatch", "GC201")},
    "theano-denied": {(SCAN, "below"): ("disconnected", "GC103")},
    "theano-rule-of-another-shape": {(SCAN, "x"): ("null", "GC105")},
    "theano-nested-noise": {(SCAN, "gain"): ("null", "GC101"), (UNROLL, "gain"): ("null", "GC101")},
    "theano-entropy": {(SCAN, "share"): ("nonfinite", "GC301")},
    "theano-written-twice": {(SCAN, "rows"): ("mismatch", "GC201")},
    "theano-until": {(SCAN, "factors"): ("mismatch", "GC201")},
    "jax-custom-vjp-sign": {(SCAN, "amount"): ("mismatch", "GC201"), (UNROLL, "amount"): ("mismatch", "GC201")},
    "jax-where-sqrt": {(SCAN, "w"): ("nonfinite", "GC301"), (UNROLL, "w"): ("nonfinite", "GC301")},
    "jax-while": {(SCAN, "ratio"): ("null", "GC105")},
    "jax-norm-at-zero": {(SCAN, "v"): ("nonfinite", "GC301")},
    "jax-hard-index": {(SCAN, "stride"): ("inconclusive", "GC401")},
    "jax-rounded": {(SCAN, "level"): ("pass", "GC703")},
    "jax-codebook": {(SCAN, "book"): ("disconnected", "GC201")},
    "jax-stateful-checkpoint": {(SCAN, "x"): ("nondeterministic", "GC501")},
    "jax-keyed-checkpoint": {(SCAN, "x"): ("pass", "")},
    "jax-float32-offset": {(SCAN, "w"): ("pass", "")},
    "jax-float32-fixed": {(SCAN, "W"): ("inconclusive", "GC403")},
    "jax-chaos": {(SCAN, "r"): ("inconclusive", "GC404")},
    "jax-at-set": {(SCAN, "t"): ("pass", "")},
    "jax-key-reuse": {(SCAN, "scale"): ("pass", "GC701")},
    "jax-bessel": {(SCAN, "x"): ("mismatch", "GC201")},
    "jax-bernoulli": {(SCAN, "p"): ("inconclusive", "GC401")},
    "jax-flat": {(SCAN, "w"): ("pass", "GC104")},
    "jax-gamma-draw": {(SCAN, "shape"): ("pass", "GC703")},
    "jax-low-precision": {(SCAN, "W"): ("inconclusive", "GC403")},
    "jax-targets": {
        (SCAN, "W"): ("mismatch", "GC201"),
        (SCAN, "v"): ("mismatch", "GC201"),
    },  # of "gated", the last objective
}
# case -> {code of a finding: what stands in the line that it blames}; None where no line is to blame
CAUSES = {
    "theano-null-through-draw": {"GC101": "T.exp(log_vol) * stream.normal(size=())"},
    "theano-silent-draw": {"GC101": "stream.normal(size=(4, 2))", "GC202": "stream.normal(size=(4, 2))"},
    "theano-noise-in-sin": {"GC101": "T.sin(gain * h + stream.normal(size=()))"},
    "theano-truncated": {"GC203": None},
    "theano-wrong-op": {"GC206": "affine(rate * h)"},
    "theano-switch-nan": {"GC301": "T.switch(x > 2.0, T.sqrt(x - 2.0), 0.5 * x)"},
    "theano-no-rule": {"GC102": "T.gammainc(shape, 2.0)"},
    "theano-sampler-parameter": {"GC102": ".normal(mu, 1.0)"},
    "theano-captured": {"GC103": "square = root**2"},
    "theano-until": {"GC208": "until(a > 6.0)"},
    "theano-copy-in-scan": {"GC103": "theano.scan(outer"},
    "theano-copy-in-part": {"GC205": "theano.map("},
    "theano-truncated-inside": {"GC203": "theano.scan("},
    "theano-gamma-draw": {"GC102": ".gamma("},
    "theano-keep-rate": {"GC102": "stream.binomial("},
    "theano-shared-mask": {"GC701": ".binomial(size=(3,)"},
    "theano-coin": {"GC401": ".uniform(0.0, 1.0"},
    "theano-bootstrap": {"GC703": "disconnected_grad(target)"},
    "theano-lazy-overflow": {"GC301": "T.exp(level)"},
    "theano-two-outputs": {"GC206": "Polar()"},
    "theano-denied": {"GC103": "Ratio()"},
    "theano-rule-of-another-shape": {"GC105": "Halves()"},
    "theano-nested-noise": {"GC101": "stream.normal("},
    "theano-entropy": {"GC301": "T.switch("},
    "theano-written-twice": {"GC206": "T.set_subtensor("},
    "jax-custom-vjp-sign": {"GC206": "wave(carry, params"},
    "jax-where-sqrt": {"GC301": "jnp.sqrt(x * params"},
    "jax-while": {"GC105": "jax.lax.while_loop("},
    "jax-norm-at-zero": {"GC302": "jnp.linalg.norm("},
    "jax-hard-index": {"GC401": ".astype(int)"},
    "jax-rounded": {"GC703": "jax.lax.stop_gradient(jnp.round("},
    "jax-codebook": {"GC205": "jax.lax.stop_gradient(nearest"},
    "jax-stateful-checkpoint": {"GC501": "rng_uniform("},
    "jax-float32-fixed": {"GC403": None},
    "jax-chaos": {"GC404": None},
    "jax-key-reuse": {"GC701": "jax.random.normal("},
    "jax-bessel": {"GC206": "jax.scipy.special.i0("},
    "jax-bernoulli": {"GC401": "jax.random.bernoulli("},
    "jax-flat": {"GC104": None},
    "jax-gamma-draw": {"GC703": "jax.random.gamma("},
    "jax-low-precision": {"GC403": None},
}

TOLD = {  # case -> (code, part of "because", of "proof"): what was observed, and what was run
    "theano-captured": ("GC103", "copy, from root", "handed in as an input of the scan the gradient agrees"),
    "theano-copy-in-scan": ("GC103", "copy, from left and right", "handed in as an input of the scan"),
    "theano-copy-in-part": ("GC205", "cube (the expression at", "the gradient agrees with the same differences"),
    "theano-truncated-inside": ("GC203", "first 3 steps", "without the truncation the gradient agrees"),
    "theano-sampler-parameter": ("GC102", "mu enters normal at", "derivative of the draw itself"),
    "theano-gamma-draw": ("GC102", "rate enters gamma", "all 2 of these gradients agree"),
    "theano-keep-rate": ("GC102", "logit enters binomial", "the objective stays the same"),
    "theano-shared-mask": ("GC701", "the same numbers at all 4 steps", ""),
    "theano-coin": ("GC401", "its mean over", "under the same"),
    "theano-bootstrap": ("GC703", "a target that a prediction is held against", "held fixed"),
    "theano-lazy-overflow": ("GC301", "ifelse at", "the gradient agrees with the differences"),
    "theano-two-outputs": ("GC206", "Polar, called at", "derivative of its own forward in place of the rule"),
    "theano-no-rule": ("GC102", "gammainc", "the derivative exists"),
    "theano-denied": ("GC103", "0 exactly by input 1", "in place of the rule, the gradient agrees"),
    "theano-rule-of-another-shape": ("GC105", "Halves at", "shape (4,) for an input of shape (2,)"),
    "theano-nested-noise": ("GC101", "reads the draw through mul", "the draws of the forward pass"),
    "theano-entropy": ("GC301", "switch at", "differences cannot tell here"),
    "theano-switch-nan": ("GC301", "sqrt at", "differences cannot tell here"),
    "theano-written-twice": ("GC206", "set_subtensor, called at", "differences of it alone"),
}


def gradcheck(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("gradcheck")
    done = subprocess.run([str(program), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def report():
    return json.loads(gradcheck("run", FOLDER, "--json", "-", "--diagnose-seconds", "60").stdout)


def test_every_model_is_in_the_table(report):
    assert sorted(TABLE) == sorted(entry["name"] for entry in report["cases"])
    assert sorted(TABLE) == sorted(path.stem.replace("_", "-") for path in FOLDER.glob("*.yaml"))


@pytest.mark.backend
@pytest.mark.parametrize("name", TABLE)
def test_the_verdict_is_right(report, name):
    entry = next(entry for entry in report["cases"] if entry["name"] == name)
    found = {
        (check["backend"].rpartition("-")[2], check["parameter"]): (check["verdict"], (check["codes"] or [""])[0])
        for check in entry["checks"]
    }
    assert found == TABLE[name]


@pytest.mark.backend
@pytest.mark.parametrize("name", [name for name in TABLE if name != "jax-targets"])
def test_the_cause_is_found_and_its_line(report, name):
    entry = next(entry for entry in report["cases"] if entry["name"] == name)
    assert [f["code"] for f in entry["findings"]] == list(CAUSES.get(name, {}))
    for finding in entry["findings"]:
        text = CAUSES[name][finding["code"]]
        assert text is None or text in finding["blame"]["text"]


@pytest.mark.backend
def test_a_stop_that_is_meant_is_told_from_one_that_cuts(report):
    """A target and a straight-through estimator are shown by differences with the stops' values held; the others are errors."""
    entry = next(entry for entry in report["cases"] if entry["name"] == "jax-targets")
    told = {tuple(f["objectives"]): (f["code"], f["severity"], f["blame"]["text"]) for f in entry["findings"]}
    assert told == {
        ("cut",): ("GC205", "error", "return jnp.sum(values(params, lambda h: lax.stop_gradient(h)))"),
        ("gated",): ("GC205", "error", "return jnp.sum(value * lax.stop_gradient(jnp.exp(value)))"),
        ("td",): ("GC703", "advice", "target = lax.stop_gradient(0.5 + 0.9 * value[1:])"),
        ("rounded",): (
            "GC703",
            "advice",
            "return jnp.sum(values(params, lambda h: h + lax.stop_gradient(jnp.round(8 * h) / 8 - h)))",
        ),
    }
    cut = [c for c in entry["checks"] if (c["objective"], c["parameter"]) == ("cut", "W")]
    assert [c["codes"] for c in cut] == [
        ["GC201", "GC205", "GC203"]
    ]  # on the way from step to step: the history is cut
    assert all("with what it returns held fixed" in f["proof"] for f in entry["findings"] if f["code"] == "GC703")


@pytest.mark.backend
def test_a_missing_score_function_is_told_with_the_mean_over_draws_and_its_error(report):
    """d/dp of 3 p + 1 (1 - p) is 2."""
    entry = next(entry for entry in report["cases"] if entry["name"] == "jax-bernoulli")
    (finding,) = entry["findings"]
    (told,) = [row["text"] for row in finding["numbers"] if row["label"] == "mean over draws"]
    slope, _, error = told.split()[:3]
    assert abs(float(slope) - 2) < 4 * float(error) < 1
    assert "over 4096 seeds" in told


@pytest.mark.backend
def test_a_draw_that_the_backward_pass_makes_again_is_counted(report):
    entry = next(entry for entry in report["cases"] if entry["name"] == "jax-stateful-checkpoint")
    assert entry["checks"][0]["codes"] == ["GC501", "GC202"]
    assert "the gradient's program draws once more than the forward's" in entry["findings"][0]["because"]


@pytest.mark.backend
@pytest.mark.parametrize("name", TOLD)
def test_the_finding_says_what_was_observed_and_what_was_run(report, name):
    code, because, proof = TOLD[name]
    entry = next(entry for entry in report["cases"] if entry["name"] == name)
    found = next(finding for finding in entry["findings"] if finding["code"] == code)
    assert because in found["because"]
    assert proof in (found["proof"] or "")


@pytest.mark.backend
def test_correct_float32_code_is_judged_by_a_float64_twin_where_there_is_one(report):
    checks = {entry["name"]: entry["checks"][0] for entry in report["cases"]}
    assert checks["jax-float32-offset"]["reference"] == "finite differences in float64"
    assert checks["jax-float32-fixed"]["reference"] == "finite differences"
    assert {checks[name]["dtype"] for name in ("jax-float32-offset", "jax-float32-fixed")} == {"float32"}


# --- bad input --------------------------------------------------------------------------------------------------------

BAD = {  # what `build` does -> part of what the user is told
    "raises": (
        "jax",
        "raise RuntimeError('no weights here')",
        "no weights here",
    ),
    "list": (
        "jax",
        "return [1, 2]",
        "returned list, not a dict",
    ),
    "empty": (
        "jax",
        "return {}",
        "without 'step' or 'loss'",
    ),
    "lacking": (
        "jax",
        "return {'loss': abs}",
        "lacks 'params'",
    ),
    "strange": (
        "jax",
        "return {'loss': abs, 'params': 1.0, 'parms': 2}",
        "unknown key 'parms'",
    ),
    "vector": (
        "jax",
        "return {'loss': lambda p: p * 2, 'params': np.ones(3)}",
        "'loss' has shape (3,): it has to be a scalar",
    ),
    "integer": (
        "jax",
        "return {'loss': lambda p: p.astype(int).sum(), 'params': np.ones(3)}",
        "is int64",
    ),
    "collide": (
        "jax",
        "return {'loss': lambda p: p['a.b'], 'params': {'a.b': 1.0, 'a': {'b': 2.0}}}",
        "two parameters are called 'a.b'",
    ),
    "nothing": (
        "jax",
        "return {'loss': lambda p: 1.0, 'params': {}}",
        "no parameter to differentiate by",
    ),
    "half": (
        "jax",
        "return {'loss': lambda p: p.sum(), 'params': np.ones(3, np.float16)}",
        "only float32 and float64",
    ),
    "unending": (
        "jax",
        "return {'step': lambda p, c, x: (c, c), 'carry': 0.0, 'params': 1.0}",
        "number of steps is not known",
    ),
    "unnamed": (
        "theano",
        "a, b = (theano.shared(1.0, 'W') for _ in 'ab'); return {'costs': {'c': a * b}, 'wrt': [a, b]}",
        "two parameters are called 'W'",
    ),
    "matrix": (
        "theano",
        "a = theano.shared(np.ones(3), 'a'); return {'costs': {'c': a}, 'wrt': [a]}",
        "it has to be a scalar",
    ),
    "free": (
        "theano",
        "x, a = T.dscalar('x'), theano.shared(1.0, 'a'); return {'costs': {'c': a * x}, 'wrt': [a]}",
        "needs a value for 'x'",
    ),
    "stranger": (
        "theano",
        "a = theano.shared(1.0, 'a'); return {'costs': {'c': a}, 'wrt': {'d': [a]}}",
        "'wrt' names 'd', which is no objective",
    ),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name, (framework, body, _) in BAD.items():
        imports = "import theano\nimport theano.tensor as T\n" if framework == "theano" else ""
        (folder / f"{name}.py").write_text(f"import numpy as np\n{imports}\ndef build():\n    {body}\n")
        step = f"step: {{framework: {framework}, build: {name}.py:build}}\n"
        (folder / f"{name}.yaml").write_text(f"name: {name}\n{step}")
    (folder / "pattern.py").write_text("def build():\n    return {'loss': lambda p: p['a'], 'params': {'a': 1.0}}\n")
    (folder / "pattern.yaml").write_text("name: pattern\nstep: {framework: jax, build: pattern.py:build}\nwrt: [W_*]\n")
    done = gradcheck("run", folder, "--json", "-", cwd=folder)
    return done.returncode, {entry["name"]: entry for entry in json.loads(done.stdout)["cases"]}


@pytest.mark.backend
@pytest.mark.parametrize("name", [*BAD, "pattern"])
def test_a_model_that_cannot_be_built_is_told_in_one_finding(told, name):
    code, entries = told
    assert code == 3
    (finding,) = entries[name]["findings"]
    assert finding["code"] == "GC905"
    assert (BAD[name][2] if name in BAD else "no parameter matches 'W_*'; the model has 'a'") in finding["because"]
    assert {check["verdict"] for check in entries[name]["checks"]} == {"not_run"}


@pytest.mark.backend
def test_the_second_rollout_of_a_loss_is_left_out_unless_it_is_asked_for():
    asked = gradcheck("run", FOLDER / "jax_at_set.yaml", "-b", "jax-unroll", "--json", "-")
    (entry,) = json.loads(asked.stdout)["cases"]
    assert asked.returncode == 3
    assert "runs its own loop" in entry["findings"][0]["because"]


def test_a_framework_that_is_not_selected_leaves_the_case_out():
    done = gradcheck("run", FOLDER / "jax_at_set.yaml", "-b", "theano-scan")
    assert done.returncode == 5
    assert "jax-at-set" in done.stdout + done.stderr


# --- size -------------------------------------------------------------------------------------------------------------

LARGE = """\
import jax.numpy as jnp
import numpy as np


def build():
    draw = np.random.default_rng(5).standard_normal
    params = {"in": {"W": draw((500, 1000)) / 22.0, "b": np.zeros(1000)}, "out": {"W": draw((1000, 500)) / 32.0}}

    def loss(params, data):
        hidden = jnp.tanh(data @ params["in"]["W"] + params["in"]["b"])
        return jnp.mean((hidden @ params["out"]["W"]) ** 2)

    return {"loss": loss, "params": params, "args": [np.linspace(-1.0, 1.0, 1000).reshape(2, 500)]}
"""


@pytest.mark.backend
def test_a_million_parameters_take_at_most_60_forward_evaluations(tmp_path):
    (tmp_path / "large.py").write_text(LARGE)
    (tmp_path / "large.yaml").write_text("name: large\nstep: {framework: jax, build: large.py:build}\n")
    report = json.loads(gradcheck("run", "large.yaml", "--json", "-", cwd=tmp_path).stdout)
    (entry,) = report["cases"]
    assert {check["verdict"] for check in entry["checks"]} == {"pass"}
    assert [check["parameter"] for check in entry["checks"]] == ["in.W", "in.b", "out.W"]
    (backend,) = (b for b in report["backends"] if b["forward_evaluations"])
    assert backend["forward_evaluations"] <= 60
    assert backend["framework"] == "jax"

"""Causes that are proven by a run: each case has one defect, and the finding must name it, place it and clear the rest."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.backend

HEAD = """\
name: {name}
step: steps.py:{step}
steps: {steps}
dims: {{b: 3, n: 4}}
sequences: {{x: {{shape: [b, n], init: normal}}}}
carry: {{h: {{shape: [b, n], init: normal}}}}
"""

STEPS = """\
def rnn(xp, x, h, W, U):
    return {"h": xp.tanh(x @ W + h @ U)}


def blocked(xp, x, h, W, U):
    kept = xp.stop_gradient(h @ U)
    return {"h": xp.tanh(kept + x @ W), "energy": xp.sum(kept * kept)}


def rounded(xp, x, h, W, U):
    v = x @ W
    return {"h": 0.5 * h + 0.0 * (h @ U), "code": v + xp.stop_gradient(xp.round(v) - v)}


def leaky(xp, x, h, eps, W, U):
    u = xp.tanh(h @ W + eps * xp.sigmoid(h @ U))
    return {"h": 0.7 * h + 0.3 * u + 0.1 * x}


def own_draw(xp, x, h, W, U):
    from theano.tensor.random.utils import RandomStream

    eps = RandomStream(seed=3).normal(size=(3, 4))
    u = xp.tanh(h @ W + eps * xp.sigmoid(h @ U))
    return {"h": 0.7 * h + 0.3 * u + 0.1 * x}


def masked(xp, x, h, W, U, n):
    return {"h": xp.tanh(x @ W + h @ U) * n}
"""

WEIGHTS = "parameters: {W: {shape: [n, n], init: glorot}, U: {shape: [n, n], init: glorot}}\n"
CASES = {
    "truncated": (9, "rnn", WEIGHTS + "objectives: {h: {of: h, reduce: dot, wrt: [W, U]}}\n"
                  "options: {theano: {truncate_gradient: 5}}\nbackends: [theano-scan]\n"),
    "blocked": (4, "blocked", WEIGHTS + "objectives: {h: {of: h, reduce: dot, wrt: [W, U]}, energy: {of: energy, wrt: [W, U]}}\n"
                "backends: [theano-scan, jax-scan, unroll]\n"),
    "rounded": (3, "rounded", WEIGHTS + "objectives: {code: {of: code, reduce: dot, wrt: [W]}}\nbackends: [jax-scan, unroll]\n"),
    "leaky": (6, "leaky", "noise: {eps: {shape: [b, n], draw: uniform, placement: in_step}}\n" + WEIGHTS
              + "objectives: {h: {of: h, reduce: dot, wrt: [W, U, x, h]}}\nbackends: [theano-scan]\n"),
    "own_draw": (5, "own_draw", WEIGHTS + "objectives: {h: {of: h, reduce: dot, wrt: [W, U, x, h]}}\nbackends: [theano-scan]\n"),
    "integer": (3, "masked", "parameters: {W: {shape: [n, n], init: glorot}, U: {shape: [n, n], init: glorot},"
                " n: {shape: [n], dtype: int64, init: {integers: [1, 3]}}}\n"
                "objectives: {h: {of: h, reduce: dot, wrt: [W, n]}}\nbackends: [theano-scan, jax-scan, unroll]\n"),
}  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("causes")
    (folder / "steps.py").write_text(STEPS)
    for name, (steps, step, more) in CASES.items():
        (folder / f"{name}.yaml").write_text(HEAD.format(name=name, step=step, steps=steps) + more)
    command = [sys.executable, "-m", "gradcheck", "run", ".", "--json", "-"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    return {case["name"]: case for case in json.loads(ran.stdout)["cases"]}


def finding(case, code):
    (found,) = [f for f in case["findings"] if f["code"] == code]
    return found


def verdicts(case, backend):
    return {(c["objective"], c["parameter"]): c["verdict"] for c in case["checks"] if c["backend"] == backend}


def test_truncation_is_proven_and_its_boundary_found(report):
    told = finding(report["truncated"], "GC203")
    assert "last 5 of 9 steps" in told["title"]
    assert "without the truncation" in told["proof"]
    assert (told["blame"]["file"], "truncate_gradient" in told["blame"]["text"]) == ("truncated.yaml", True)
    assert [c["time_steps"] for c in report["truncated"]["checks"] if c["time_steps"]] == [[0, 3]]


def test_an_unroll_that_was_not_asked_for_is_run_for_comparison(report):
    """Only theano-scan was named; the same framework's unroll shows that the step's own rules are right."""
    for name in ("truncated", "leaky"):
        rows = [row for f in report[name]["findings"] for row in f["numbers"] if row["label"] == "unrolled"]
        assert rows
        assert all("right" in row["text"] for row in rows)


def test_blocked_paths_are_one_finding_over_all_backends(report):
    case = report["blocked"]
    assert [f["code"] for f in case["findings"]] == ["GC205"]
    told = finding(case, "GC205")
    assert told["backends"] == ["theano-scan", "jax-scan", "unroll"]
    assert told["blame"]["text"] == "kept = xp.stop_gradient(h @ U)"
    assert "stop_gradient as the identity" in told["proof"]
    for backend in told["backends"]:
        assert verdicts(case, backend) == {
            ("h", "W"): "mismatch",  # its last step arrives, what passes through the carry does not
            ("h", "U"): "disconnected",
            ("energy", "W"): "disconnected",
            ("energy", "U"): "disconnected",
        }


def test_a_straight_through_estimator_is_advice(report):
    case = report["rounded"]
    assert [f["code"] for f in case["findings"]] == ["GC703"]
    assert finding(case, "GC703")["severity"] == "advice"
    assert {c["verdict"] for c in case["checks"]} == {"pass"}


def test_noise_in_a_leaky_step_nulls_some_and_silently_spoils_others(report):
    case = report["leaky"]
    assert verdicts(case, "theano-scan") == {
        ("h", "W"): "null",
        ("h", "U"): "null",
        ("h", "x"): "mismatch",
        ("h", "h"): "null",
    }
    for code in ("GC101", "GC202"):
        told = finding(case, code)
        assert "passed in as a sequence" in told["proof"]
        assert told["blame"]["text"] == "u = xp.tanh(h @ W + eps * xp.sigmoid(h @ U))"
        assert "placement: sequence" in told["help"]
        assert "of the ops' own rules" in told["proof"]
    assert (
        "of W reads the draw through tanh at steps.py:16, that of U, h through mul at steps.py:16"
        in finding(case, "GC101")["because"]
    )
    told = finding(case, "GC202")["because"]
    assert "the carry's adjoint reads the draw through mul at steps.py:16" in told
    assert "the inner gradient of x itself reads no draw" in told


def test_a_draw_that_the_step_makes_itself_is_found_at_its_line(report):
    """The case says nothing of noise: what is told comes from the scan's own graph."""
    case = report["own_draw"]
    assert [f["code"] for f in case["findings"]] == ["GC101", "GC202"]
    for code in ("GC101", "GC202"):
        told = finding(case, code)
        assert told["blame"]["text"] == "eps = RandomStream(seed=3).normal(size=(3, 4))"
        assert "of the ops' own rules, on the draws of the forward pass" in told["proof"]


def test_an_integer_input_is_judged_apart(report):
    case = report["integer"]
    for backend in ("theano-scan", "jax-scan", "unroll"):
        assert verdicts(case, backend) == {("h", "W"): "pass", ("h", "n"): "inconclusive"}
    assert [f["code"] for f in case["findings"]] == ["GC401"]

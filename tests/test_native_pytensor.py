"""Native PyTensor models: one small model per kind of gradient bug, and the clean controls; what is said of which line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "cases" / "pytensor"
SCAN, UNROLL = "scan", "unroll"


def everywhere(verdict, code, *names, rollouts=(SCAN, UNROLL)):
    return {(rollout, name): (verdict, code) for rollout in rollouts for name in names}


# case -> {(rollout, parameter): (verdict, the observed code)}; "" where a check passes without a word
TABLE = {
    "pytensor-volatility": {
        (SCAN, "log_vol"): ("null", "GC101"),
        (UNROLL, "log_vol"): ("pass", ""),
        **everywhere("pass", "", "phi"),
    },
    "pytensor-latent": {
        (SCAN, "mean"): ("mismatch", "GC201"),
        (SCAN, "spread"): ("null", "GC101"),
        (SCAN, "back"): ("null", "GC101"),
        **everywhere("pass", "", "mean", "spread", "back", rollouts=[UNROLL]),
    },
    "pytensor-returned-draw": everywhere("pass", "", "gain", "spread"),
    "pytensor-sampler": {(SCAN, "scale"): ("null", "GC102")},
    "pytensor-coin": {(SCAN, "bias"): ("inconclusive", "GC401")},
    "pytensor-reparameterised": everywhere("pass", "", "mean", "log_sd", rollouts=[SCAN]),
    "pytensor-overflow": {(SCAN, "x"): ("nonfinite", "GC301")},
    "pytensor-switched": everywhere("pass", "", "pull"),
    "pytensor-length": {(SCAN, "v"): ("nonfinite", "GC301")},
    "pytensor-curvature": {(SCAN, "r"): ("pass", "")},
    "pytensor-wrong-pullback": everywhere("mismatch", "GC201", "rate"),
    "pytensor-truncated": {(SCAN, "weight"): ("mismatch", "GC201"), (UNROLL, "weight"): ("pass", "")},
    "pytensor-ties": {
        (SCAN, "best scores"): ("mismatch", "GC201"),
        (SCAN, "worst lowest"): ("mismatch", "GC201"),
        (SCAN, "absolute scores"): ("inconclusive", "GC402"),
    },
}
# case -> {code of a finding: what stands in the line that it blames}; None where no line is to blame
CAUSES = {
    "pytensor-volatility": {"GC101": "key.normal()"},
    "pytensor-latent": {"GC101": "rng.normal(size=(4, 2))", "GC202": "rng.normal(size=(4, 2))"},
    "pytensor-sampler": {"GC102": ".exponential(scale)"},
    "pytensor-overflow": {"GC301": "pt.exp(2.0 * x)"},
    "pytensor-length": {"GC302": "pt.sqrt(pt.sum("},
    "pytensor-wrong-pullback": {"GC206": "cube(before)"},
    "pytensor-truncated": {"GC203": None},
}


@pytest.fixture(scope="module")
def report():
    program = Path(sys.executable).with_name("gradcheck")
    arguments = [str(program), "run", str(FOLDER), "--json", "-"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert "Traceback" not in done.stdout + done.stderr
    return json.loads(done.stdout)


def named(entry, check):
    """A parameter, with the objective where a case has several."""
    several = len({c["objective"] for c in entry["checks"]}) > 1
    return f"{check['objective']} {check['parameter']}" if several else check["parameter"]


def test_every_model_is_in_the_table(report):
    assert sorted(TABLE) == sorted(entry["name"] for entry in report["cases"])


@pytest.mark.parametrize("name", TABLE)
def test_the_verdict_is_right_and_so_are_the_cause_and_its_line(report, name):
    entry = next(entry for entry in report["cases"] if entry["name"] == name)
    found = {
        (check["backend"].rpartition("-")[2], named(entry, check)): (check["verdict"], (check["codes"] or [""])[0])
        for check in entry["checks"]
    }
    assert found == TABLE[name]
    blamed = {f["code"]: (f["blame"] or {}).get("text", "") for f in entry["findings"]}
    for code, text in CAUSES.get(name, {}).items():
        assert code in blamed
        assert text is None or text in blamed[code]


def test_the_draw_is_explained_and_the_explanation_was_run(report):
    entry = next(entry for entry in report["cases"] if entry["name"] == "pytensor-latent")
    findings = {f["code"]: f for f in entry["findings"]}
    assert "spread reads the draw through mul" in findings["GC101"]["because"]
    assert "that of back through dot" in findings["GC101"]["because"]
    assert "the carry's adjoint reads the draw through mul" in findings["GC202"]["because"]
    assert all("composed of the ops' own rules" in f["proof"] for f in findings.values())
    assert all("as a sequence" in f["help"] and "MRG" not in f["help"] for f in findings.values())


def test_ties_are_told_from_kinks(report):
    entry = next(entry for entry in report["cases"] if entry["name"] == "pytensor-ties")
    (finding,) = [f for f in entry["findings"] if f["code"] == "GC206"]
    assert "maximum" in finding["title"]
    assert "it is no subgradient" in finding["because"]


# --- bad input: what `build` does -> part of what the user is told ----------------------------------------------------

BAD = {
    "free": (
        "x, a = pt.dscalar('x'), pytensor.shared(1.0, 'a'); return {'costs': {'c': a * x}, 'wrt': [a]}",
        "for 'x'",
    ),
    "matrix": ("a = pytensor.shared(np.ones(3), 'a'); return {'costs': {'c': a}, 'wrt': [a]}", "to be a scalar"),
    "scanless": ("return {'scan': {'steps': 3}, 'objectives': {'c': abs}, 'wrt': []}", "pytensor.scan's own arguments"),
    "generator": (
        "k = pt.random.shared_rng(seed=1); return {'costs': {'c': k.normal()[1]}, 'wrt': [k]}",
        "'wrt' holds",
    ),
}


def test_a_model_that_cannot_be_built_is_told_in_one_finding(tmp_path):
    for name, (body, _) in BAD.items():
        imports = "import numpy as np\nimport pytensor\nimport pytensor.tensor as pt\n"
        (tmp_path / f"{name}.py").write_text(f"{imports}\ndef build():\n    {body}\n")
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\nstep: {{framework: pytensor, build: {name}.py:build}}\n")
    program = Path(sys.executable).with_name("gradcheck")
    done = subprocess.run([str(program), "run", ".", "--json", "-"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3
    for entry in json.loads(done.stdout)["cases"]:
        (finding,) = entry["findings"]
        assert finding["code"] == "GC905"
        assert BAD[entry["name"]][1] in finding["because"]

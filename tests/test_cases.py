"""The shipped cases, run as a user runs them: one process, five backends, one JSON report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gradcheck import __version__
from gradcheck.catalog import load_backends

pytestmark = pytest.mark.backend

ROOT = Path(__file__).parents[1]
BACKENDS = ["jax-scan", "jax-unroll", "unroll", "theano-scan", "theano-unroll"]


def gradcheck(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("gradcheck")
    return subprocess.run([str(program), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def process() -> subprocess.CompletedProcess[str]:
    return gradcheck("run", "cases", "--json", "-")


@pytest.fixture(scope="module")
def report(process):
    return json.loads(process.stdout)


@pytest.fixture(scope="module")
def case(report):
    by_name = {entry["name"]: entry for entry in report["cases"]}
    return by_name.__getitem__


def on(entry, backend):
    return [check for check in entry["checks"] if check["backend"] == backend]


def verdicts(entry, *, but=()):
    return {check["verdict"] for check in entry["checks"] if check["backend"] not in but}


def test_everything_is_as_expected(process, report):
    assert process.returncode == 0, process.stderr
    assert report["exit_code"] == 0
    assert report["summary"]["failed"] == 0
    assert report["summary"]["not_run"] == 0
    assert report["summary"]["inconclusive"] == 0
    assert report["summary"]["passed"] > 0


def test_every_shipped_case_ran_on_all_its_backends(report):
    files = sorted(path.name for path in (ROOT / "cases").rglob("*.yaml"))
    assert sorted(Path(entry["path"]).name for entry in report["cases"]) == files
    for entry in report["cases"]:
        ran = {check["backend"] for check in entry["checks"]}
        own = Path(entry["path"]).name.partition("_")[0] if "native" in Path(entry["path"]).parts else ""
        native = {name for name in load_backends() if name.startswith(f"{own}-")}
        assert ran == ({"torch-unroll"} if own == "torch" else native if own else set(BACKENDS)), entry["name"]


def test_the_report_names_frameworks_and_their_versions(report):
    assert report["tool"] == {"name": "gradcheck", "version": __version__}
    catalog = load_backends()
    assert [entry["name"] for entry in report["backends"]] == list(catalog)
    assert sorted(name for name, (backend, _) in catalog.items() if backend.default) == sorted(BACKENDS)
    for entry in report["backends"]:
        assert entry["framework"] == catalog[entry["name"]][0].framework
        assert entry["framework_version"][0].isdigit()
        assert entry["python_version"].startswith("3.")
        assert entry["environment"] in ("given", "running", "built")
        idle = entry["name"] == "torch-scan"  # the shipped model has no step to scan
        assert entry["forward_evaluations"] > 0 or idle
        assert entry["seconds"] > 0


@pytest.mark.parametrize("name", ["rnn-vae", "gru", "lstm", "float32-rnn", "noise-draw-returned", "additive-noise"])
def test_healthy_cases_pass_everywhere_without_a_word(case, name):
    entry = case(name)
    assert verdicts(entry) == {"pass"}
    assert {check["backend"] for check in entry["checks"]} == set(BACKENDS)
    assert entry["findings"] == []


def test_the_float32_case_is_judged_in_float32(case):
    assert {check["dtype"] for check in case("float32-rnn")["checks"]} == {"float32"}
    assert all(check["reference"].endswith("in float64") for check in case("float32-rnn")["checks"])


def test_shared_noise_passes_with_advice(case):
    entry = case("rnn-vae-shared-noise")
    assert verdicts(entry) == {"pass"}
    assert [(f["code"], f["severity"]) for f in entry["findings"]] == [("GC701", "advice")]


def test_noise_in_step_is_wrong_on_theanos_scan_alone(case):
    entry = case("rnn-vae-noise-in-step")
    assert verdicts(entry, but=["theano-scan"]) == {"pass"}
    scan = {(c["objective"], c["parameter"]): c for c in on(entry, "theano-scan")}
    found = {pair: check["verdict"] for pair, check in scan.items() if check["verdict"] != "pass"}
    silent = {("hidden", p) for p in ("W_x", "W_h", "b_h", "W_mu")} | {("obj", "W_x"), ("est", "W_x")}
    assert {pair for pair, verdict in found.items() if verdict == "mismatch"} == silent
    assert set(found.values()) == {"mismatch", "null"}
    assert all(check["expected"] for pair, check in scan.items() if pair in found)


@pytest.mark.parametrize("code", ["GC101", "GC202"])
def test_noise_in_step_is_blamed_on_the_line_that_uses_the_draw(case, code):
    findings = [f for f in case("rnn-vae-noise-in-step")["findings"] if f["code"] == code]
    assert findings
    lines = (ROOT / "cases" / "rnn_vae.py").read_text().splitlines()
    uses = [n for n, text in enumerate(lines, 1) if "* eps" in text.partition("#")[0]]
    for finding in findings:
        assert finding["backends"] == ["theano-scan"]
        assert finding["severity"] == "error"
        assert finding["expected"]
        assert finding["blame"]["file"] == "cases/rnn_vae.py"
        assert [finding["blame"]["line"]] == uses
        assert finding["blame"]["text"] == lines[uses[0] - 1].strip()
        assert finding["proof"]
        assert finding["help"]


def test_noise_in_step_has_no_other_finding(case):
    assert {f["code"] for f in case("rnn-vae-noise-in-step")["findings"]} == {"GC101", "GC202"}


def test_truncated_history_is_found_on_the_scan_that_truncates(case):
    entry = case("truncated-history")
    assert verdicts(entry, but=["theano-scan"]) == {"pass"}
    assert {f["code"] for f in entry["findings"]} == {"GC203"}
    assert all(f["backends"] == ["theano-scan"] and f["expected"] for f in entry["findings"])
    wrong = [check for check in on(entry, "theano-scan") if check["verdict"] == "mismatch"]
    assert wrong
    assert all("GC203" in check["codes"] for check in wrong)


def test_a_parameter_without_effect_is_advice_only(case):
    entry = case("disconnected")
    assert {(f["code"], f["severity"]) for f in entry["findings"]} == {("GC104", "advice")}
    dead = {(c["objective"], c["parameter"]) for c in entry["checks"] if c["codes"]}
    assert dead == {("fit", "b_spread")}
    assert {c["verdict"] for c in entry["checks"] if not c["codes"]} == {"pass"}
    assert {c["verdict"] for c in entry["checks"] if c["codes"]} <= {"pass", "disconnected"}


def test_a_native_model_is_checked_under_its_own_names(case):
    entry = case("native-jax-language-model")
    names = {"embedding", "cell.W", "cell.b", "readout[0].w", "readout[1].w"}  # the readout's biases are not asked for
    assert {check["parameter"] for check in entry["checks"]} == names
    assert verdicts(entry) == {"pass"}
    assert entry["findings"] == []


def test_the_founding_model_is_null_and_silently_wrong_in_its_own_words(case):
    entry = case("native-theano-rnn")
    assert verdicts(entry, but=["theano-scan"]) == {"pass"}
    found = {(c["parameter"], c["verdict"]) for c in on(entry, "theano-scan")}
    assert found == {("W_sigma", "null"), ("W_z", "null"), ("W_mu", "mismatch"), ("W_h", "mismatch")}
    assert all(check["expected"] for check in on(entry, "theano-scan"))


def test_a_state_space_likelihood_passes(case):
    entry = case("native-pytensor-state-space")
    assert {c["parameter"] for c in entry["checks"]} == {"a0", *(f"log_sigma_{n}" for n in ("obs", "level", "slope"))}
    assert verdicts(entry) == {"pass"}
    assert entry["findings"] == []


def test_pytensors_scan_has_both_halves_of_theanos_bug():
    done = gradcheck(
        "run", "cases/rnn_vae_noise_in_step.yaml", "-b", "pytensor-scan", "-b", "pytensor-unroll", "--json", "-"
    )
    (entry,) = json.loads(done.stdout)["cases"]
    assert done.returncode == 0
    assert verdicts(entry, but=["pytensor-scan"]) == {"pass"}
    scan = {(c["objective"], c["parameter"]): c["verdict"] for c in on(entry, "pytensor-scan")}
    silent = {("hidden", p) for p in ("W_x", "W_h", "b_h", "W_mu")} | {("obj", "W_x"), ("est", "W_x")}
    assert {pair for pair, verdict in scan.items() if verdict == "mismatch"} == silent
    findings = {f["code"]: f for f in entry["findings"]}
    assert set(findings) == {"GC101", "GC202"}
    for finding in findings.values():
        assert finding["expected"]
        assert finding["blame"]["text"] == "z = mu + xp.exp(0.5 * log_var) * eps"
        assert "with the same draws passed in as a sequence all" in finding["proof"]
        assert "reads the draw through" in finding["because"]


def test_without_its_expectations_the_noise_case_fails():
    done = gradcheck("run", "cases/rnn_vae_noise_in_step.yaml", "--no-expect", "-b", "theano-scan", "--json", "-")
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 1
    assert report["summary"]["expected"] == 0
    assert report["summary"]["failed"] > 0
    assert {f["code"] for entry in report["cases"] for f in entry["findings"]} == {"GC101", "GC202"}
    assert not any(f["expected"] for entry in report["cases"] for f in entry["findings"])

"""benchmarks/peers.py without the other checkers: gradcheck reaches its models, and its words are computed from what was run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TINY = 1e-30


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location(f"benchmarks_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load(BENCHMARKS / "peers" / "measure.py", monkeypatch)


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load(BENCHMARKS / "peers.py", monkeypatch)


def model(measure: ModuleType, **settings):
    """The benchmark's model with gradients by complex step, which needs no framework."""

    class ComplexStep(measure.Model):
        def build(self):
            pass

        def value(self, *arrays):
            return float(self.loss(np, np.tanh, arrays, self.fixed))

        def gradient(self, *arrays, cotangent=1.0):
            gradients = [np.empty(a.shape) for a in arrays]
            for k, array in enumerate(arrays):
                for index in np.ndindex(array.shape):
                    moved = [a.astype(complex) for a in arrays]
                    moved[k][index] += 1j * TINY
                    slope = np.imag(self.loss(np, np.tanh, moved, self.fixed)) / TINY
                    gradients[k][index] = cotangent * slope
            if self.multiplier is not None:
                gradients[measure.NAMES.index(measure.FAULTED)] *= self.multiplier
            return [g.astype(self.settings.dtype) for g in gradients]

    return ComplexStep(measure.Settings(size=60, steps=3, **settings))


def test_gradcheck_clears_the_benchmarks_model_and_names_the_planted_entry(measure):
    right = model(measure)
    assert measure.gradcheck_examination(right)["verdict"] == "pass"
    right.multiplier = measure.planted(right, (2, 1), 1.001)
    found = measure.gradcheck_examination(right)
    assert (found["verdict"], found["where"], found["entry"]) == ("wrong", "W_h", [2, 1])


def test_a_float32_model_is_held_against_the_same_inputs_in_float64(measure):
    right = model(measure, dtype="float32")
    assert measure.gradcheck_examination(right)["verdict"] == "pass"
    assert right.widened().value(*right.parameters.values()) == pytest.approx(
        right.value(*right.parameters.values()), rel=1e-5
    )


def line(kind: str, verdict: str, values: int, seconds: float, **more) -> dict:
    return {
        "kind": kind,
        "verdict": verdict,
        "values": values,
        "seconds": seconds,
        "peak_mb": 1.0,
        "named": False,
    } | more


def lines_of_a_run(peers: ModuleType, ours_values: int) -> list:
    """torch's slow mode and gradcheck at P = 20 000, and one planted error."""
    job = peers.Job
    return [
        job("torch slow", {"stage": "cost", "size": 20_000}, lines=[line("passing", "pass", 40_002, 30.0)]),
        job(
            "gradcheck torch",
            {"stage": "cost", "size": 20_000},
            lines=[line("passing", "pass", 42, 0.1), line("failing", "wrong", ours_values, 0.2, named=True)],
        ),
        job("torch fast", {"stage": "cost", "size": 20_000}, lines=[line("passing", "pass", 16, 0.2)]),
        job(
            "gradcheck torch",
            {"stage": "errors", "seeds": 1},
            lines=[line("error", "pass", 42, 0.1, name="entry x1.01")],
        ),
        job(
            "torch slow", {"stage": "errors", "seeds": 1}, lines=[line("error", "wrong", 1457, 1.0, name="entry x1.01")]
        ),
    ]


@pytest.mark.parametrize(("values", "verdict"), [(80, "reached"), (81, "not reached")])
def test_targets_are_held_against_what_was_measured(peers, values, verdict):
    rows = {row[0]: row for row in peers.must_reach(lines_of_a_run(peers, values))[2]}
    assert rows["values, failing with the entry named, P = 20 000: at most 80"][-1] == verdict
    assert rows["values, failing with the entry named, P = 1 000 000: at most 80"][-1] == "not measured"
    assert rows["times as fast as torch's slow mode, P = 20 000: at least 50"][2:] == ["300", "—", "—", "reached"]
    assert rows["one recurrent entry x1.01, named"][1:] == [
        "1 of 1 (torch gradcheck, slow)",
        "0 of 1",
        "—",
        "—",
        "not reached",
    ]


def test_rows_that_gradcheck_loses_are_found(peers):
    lost = peers.losses(lines_of_a_run(peers, 62))
    assert lost == [
        "torch gradcheck, slow: found: entry x1.01: 1 of 1 against 0 of 1",
        "torch gradcheck, fast: passing: 16 against 42 values, P = 20 000",
    ]


def test_a_file_of_an_earlier_run_is_completed_not_repeated(peers):
    asked = peers.Job("jax", {"stage": "errors", "seeds": 3})
    finished = peers.Job("jax", {"stage": "errors", "seeds": 3}, limit=1.0)
    stopped = peers.Job("jax", {"stage": "errors", "seeds": 3}, limit=60.0, ended="over 60 s")
    assert peers.holds(finished, asked, 120.0)
    assert peers.holds(stopped, asked, 60.0)
    assert not peers.holds(stopped, asked, 120.0)
    assert not peers.holds(finished, peers.Job("jax", {"stage": "errors", "seeds": 4}), 120.0)


def test_the_markdown_stands_between_the_markers_of_its_file(peers, tmp_path):
    file = tmp_path / "README.md"
    file.write_text("before\n<!-- peers -->\nold\n<!-- /peers -->\nafter\n")
    peers.write_markdown(file, "new\n")
    assert file.read_text() == "before\n<!-- peers -->\nnew\n<!-- /peers -->\nafter\n"

"""Ten mutated copies of shipped cases for every fingerprint, on a real reverse mode: HIPS autograd, with a fault planted.

The backend is the shipped one with a reverse pass that is wrong on purpose; what it evaluates is untouched. A path that is
blocked is a `stop_gradient` written into a copy of the step.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend

ROOT = Path(__file__).parents[2]
ADAPTER = '''
"""The shipped adapter with a fault in its reverse pass, which the case's options name."""

import numpy as np

from . import right
from .right import start


class Cut:
    """A case whose step is differentiated wrongly: what it returns is the same."""

    def __init__(self, task, kind, at, name):
        self.task, self.kind, self.at, self.name, self.t = task, kind, at, name, -1

    def __getattr__(self, name):
        return getattr(self.task, name)

    def step(self, xp, inputs):
        self.t += 1
        if self.kind == "truncated" and self.t == self.at:  # what is before does not count
            inputs = dict(inputs, **{n: stopped(inputs[n]) for n in self.task.carries})
        if self.kind == "step" and self.t == self.at:  # half as much again of what this step contributes
            probe = self.task.time_probe
            names = [self.name, probe[1]] if probe and probe[0] == self.name else [self.name]
            inputs = dict(inputs, **{n: 1.5 * inputs[n] - 0.5 * stopped(inputs[n]) for n in names})
        return self.task.step(xp, inputs)


def stopped(value):
    from autograd.tracer import getval, isbox

    while isbox(value):
        value = getval(value)
    return value


ORDERS = {
    "transposed": lambda a: np.swapaxes(a, 0, 1), "reversed0": lambda a: np.flip(a, 0), "reversed1": lambda a: np.flip(a, 1),
    "shifted0": lambda a: np.roll(a, 1, 0), "shifted1": lambda a: np.roll(a, 1, 1),
}


class Mutant(right.Model):
    def __init__(self, problem):
        self.kind, *self.rest = problem.options["fault"].split()
        super().__init__(problem)

    def trace(self, arrays, wrt):
        task = self.problem
        if self.kind in ("truncated", "step"):
            self.problem = Cut(task, self.kind, int(self.rest[0]), self.rest[-1])
        try:
            return super().trace(arrays, wrt)
        finally:
            self.problem = task

    def gradients(self, arrays, cotangent=1.0):
        found = super().gradients(arrays, cotangent)
        for by_input in found.values():
            for name, (status, array) in by_input.items():
                if self.kind == "times" and name == self.rest[1]:
                    by_input[name] = status, array * float(self.rest[0])
                if self.kind in ORDERS and name == self.rest[0]:
                    by_input[name] = status, ORDERS[self.kind](array).copy()
        return found


def prepare(problem):
    return Mutant(problem)
'''
RNN, GRU = "rnn_vae", "gru"
BATCH, STEPS = {RNN: 4, GRU: 5}, {RNN: 12, GRU: 8}
# family -> [(case, fault, code, what the title says, (first, last) time step or None)]; a blocked path: (case, old, new)
MUTANTS = {
    "factor": [
        (case, f"times {value!r} {name}", "GC204", f"{value:.6g} times the right one", None)
        for case, name, value in [
            (RNN, "W_x", 2.0), (RNN, "W_h", 0.5), (RNN, "W_mu", 1 / BATCH[RNN]), (RNN, "W_out", float(BATCH[RNN])),
            (RNN, "b_h", 1 / STEPS[RNN]), (RNN, "W_est", float(STEPS[RNN])), (GRU, "U_c", 1 / BATCH[GRU]),
            (GRU, "W_r", 1 / STEPS[GRU]), (GRU, "b_u", 1.01), (GRU, "x", 3.0),
        ]
    ],
    "sign": [
        (case, f"times -1.0 {name}", "GC204", "wrong sign", None)
        for case, names in ((RNN, "W_x W_h W_z b_h W_sigma"), (GRU, "U_r W_u b_c x h")) for name in names.split()
    ],
    "axis": [
        (case, f"{kind} {name}", "GC207", title, None)
        for case, kind, name, title in [
            (RNN, "transposed", "W_h", "transposed"), (GRU, "transposed", "U_r", "transposed"),
            (GRU, "transposed", "U_c", "transposed"), (RNN, "reversed0", "W_x", "reversed along axis 0"),
            (RNN, "reversed1", "W_z", "reversed along axis 1"), (RNN, "shifted0", "W_mu", "along axis 0"),
            (RNN, "shifted1", "W_sigma", "along axis 1"), (GRU, "reversed0", "W_c", "reversed along axis 0"),
            (GRU, "reversed1", "x", "reversed along axis 1"), (GRU, "shifted1", "h", "along axis 1"),
        ]
    ],
    "truncation": [
        (RNN, f"truncated {k}", "GC203", f"cotangent is lost between steps {k - 1} and {k}", None)
        for k in range(1, 11)
    ],
    "step": [
        (case, f"step {t} {name}", "GC201", "", (t, t))
        for case, name, steps in ((RNN, "W_h", (0, 3, 6, 9, 11)), (GRU, "W_c", (0, 1, 2, 4, 5))) for t in steps
        if not (case == RNN and t == 0)  # the carry is zero there: W_h contributes nothing
    ] + [(RNN, "step 1 W_x", "GC201", "", (1, 1))],
    "op": [
        (RNN, "h @ W_h", "xp.stop_gradient(h @ W_h)"), (RNN, "z @ W_z", "xp.stop_gradient(z @ W_z)"),
        (RNN, "xp.exp(0.5 * log_var)", "xp.stop_gradient(xp.exp(0.5 * log_var))"),
        (RNN, "mu + xp.exp", "xp.stop_gradient(mu) + xp.exp"), (RNN, "x @ W_x", "xp.stop_gradient(x @ W_x)"),
        (GRU, "update * h +", "xp.stop_gradient(update) * h +"), (GRU, "h @ U_u", "xp.stop_gradient(h @ U_u)"),
        (GRU, "(reset * h) @ U_c", "xp.stop_gradient(reset * h) @ U_c"), (GRU, "x @ W_r", "xp.stop_gradient(x @ W_r)"),
        (GRU, "* candidate", "* xp.stop_gradient(candidate)"),
    ],
}  # fmt: skip


def write(folder: Path) -> None:
    """The mutant backend, and a copy of a shipped case for every mutant."""
    backend = folder / "backends" / "mutant"
    shutil.copytree(ROOT / "backends" / "numpy", backend, ignore=shutil.ignore_patterns("__pycache__", "native.py"))
    (backend / "adapter.py").rename(backend / "right.py")
    (backend / "adapter.py").write_text(ADAPTER)
    manifest = (backend / "backend.toml").read_text().replace('name = "numpy"', 'name = "mutant"')
    manifest = manifest.replace('unroll = "unroll"', 'mutant-unroll = "unroll"').replace(
        "default = true", "default = false"
    )
    manifest = manifest.replace("native = true", "native = false").replace('owns = ["autograd", "numpy"]\n', "")
    (backend / "backend.toml").write_text(manifest.replace("[options]", '[options]\nfault = { default = "none" }'))
    for family, mutants in MUTANTS.items():
        for number, mutant in enumerate(mutants):
            name, fault = f"{family}_{number}", mutant[1] if family != "op" else "none"
            source = (ROOT / "cases" / f"{mutant[0]}.py").read_text()
            if family == "op":
                assert source.count(mutant[1]) == 1, mutant
                source = source.replace(mutant[1], mutant[2])
            (folder / f"{name}.py").write_text(source)
            text = (
                (ROOT / "cases" / f"{mutant[0]}.yaml").read_text().replace(f"step: {mutant[0]}.py", f"step: {name}.py")
            )
            text = text.replace(f"name: {mutant[0].replace('_', '-')}\n", f"name: {name}\n")
            (folder / f"{name}.yaml").write_text(
                f'{text}\noptions: {{mutant: {{fault: "{fault}"}}}}\nbackends: [mutant-unroll]\n'
            )


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutants")
    write(folder)
    command = [
        sys.executable,
        "-m",
        "gradcheck",
        "run",
        ".",
        "--backends",
        "backends",
        "--json",
        "-",
        "--diagnose-seconds",
        "120",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    return {entry["name"]: entry for entry in json.loads(done.stdout)["cases"]}


def told(family, mutant, entry) -> bool:
    """Whether the right code is given, with the right factor, axis, k, step or line."""
    if family == "op":
        lines = [f["blame"]["text"] for f in entry["findings"] if f["code"] == "GC205" and f["blame"]]
        return bool(lines) and all(mutant[2].split(" +")[0].split("* ")[-1] in text for text in lines)
    _, _, code, title, steps = mutant
    found = [f for f in entry["findings"] if f["code"] == code]
    right = bool(found) and all(title in f["title"] for f in found)
    wrong = [c for c in entry["checks"] if c["verdict"] == "mismatch"]
    return right and (steps is None or any(c["time_steps"] == list(steps) for c in wrong))


def said(entry):
    """What was found instead."""
    found = [(f["code"], f["title"], (f["blame"] or {}).get("text")) for f in entry["findings"]]
    return found, [(c["parameter"], c["time_steps"]) for c in entry["checks"] if c["time_steps"]]


def test_mutants_of_shipped_cases_get_the_right_code(entries):
    missed = [
        (family, mutant, said(entries[f"{family}_{number}"]))
        for family, mutants in MUTANTS.items()
        for number, mutant in enumerate(mutants)
        if not told(family, mutant, entries[f"{family}_{number}"])
    ]
    counts = Counter(family for family, *_ in missed)
    table = ", ".join(
        f"{family} {len(mutants) - counts[family]} of {len(mutants)}" for family, mutants in MUTANTS.items()
    )
    print(table)
    assert all(len(mutants) == 10 for mutants in MUTANTS.values())
    assert len(missed) <= 0.05 * sum(map(len, MUTANTS.values())), f"{table}; missed: {missed}"

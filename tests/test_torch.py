"""PyTorch models as they are: verdict, cause and line of each kind of gradient bug, and no error of what is right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "cases" / "torch"
DETACHED = ("mismatch", "GC205", "error")

# case -> (verdict of its worst check, the finding's code and severity, the op and a piece of the line that it blames)
TABLE = {
    "checkpoint-redraws": ("mismatch", "GC202", "error", "dropout", "dropout(torch.sin"),
    "custom-redraws": ("mismatch", "GC202", "error", "Masked", "Masked.apply"),
    "data-written": ("mismatch", "GC201", "error", "clamp_", "energy.data.clamp_"),
    "hidden-detach": (*DETACHED, "detach", "state.detach()"),
    "retensored": (*DETACHED, "tensor", "torch.tensor(["),
    "sampled": (*DETACHED, "sample", "posterior.sample()"),
    "float-read": (*DETACHED, "float", "math.exp"),
    "item-copied": ("disconnected", "GC205", "error", "item", ".item()"),
    "scatter-twice": ("mismatch", "GC206", "error", "index_put", "index_put("),
    "wrong-function": ("mismatch", "GC206", "error", "Swish", "Swish.apply"),
    "averaged-over-time": ("mismatch", "GC204", "error", "SharedWeight", "SharedWeight.apply"),
    "where-unrolled": ("nonfinite", "GC301", "error", "sqrt", "torch.where("),
    "masked-root": ("nonfinite", "GC301", "error", "sqrt", "torch.sqrt("),
    "norm-at-zero": ("nonfinite", "GC302", "error", "sqrt", "torch.sqrt("),
    "stateful": ("nondeterministic", "GC501", "error", "", ""),
    "relu-at-zero": ("inconclusive", "GC402", "inconclusive", "", ""),
    "rounded": ("pass", "GC703", "advice", "Rounded", "Rounded.apply"),
    "gamma-draws": ("pass", "GC703", "advice", "", "torch.distributions."),
    "dropout-beside": ("mismatch", "GC204", "error", "Softened", "Softened.apply"),
    "target": ("pass", "GC703", "advice", "Sequential", "model(states[1:])"),
    "scanned-cell": ("disconnected", "GC104", "advice", "", ""),  # the last state does not see the readout
}
CLEAN = ("checkpoint-kept", "float32-linear", "second-derivative", "training-mode", "written-buffer")


def gradcheck(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("gradcheck")
    done = subprocess.run([str(program), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def entries():
    """The shipped example and all cases, by name."""
    done = gradcheck("run", FOLDER, "cases/native/torch_lstm.yaml", "--diagnose-seconds", 120, "--json", "-")
    return {entry["name"].removeprefix("torch-"): entry for entry in json.loads(done.stdout)["cases"]}


def verdicts(entry):
    return {check["verdict"] for check in entry["checks"]}


def test_every_model_is_in_the_table(entries):
    assert sorted([*TABLE, *CLEAN, "native-torch-lstm"]) == sorted(entries)
    assert len(list(FOLDER.glob("*.yaml"))) == len(TABLE) + len(CLEAN)


@pytest.mark.parametrize("name", TABLE)
def test_the_cause_is_named_with_its_line(entries, name):
    verdict, code, severity, op, text = TABLE[name]
    (finding,) = entries[name]["findings"]
    assert (finding["code"], finding["severity"]) == (code, severity)
    worst = [v for v in ("nonfinite", "nondeterministic", "disconnected", "mismatch") if v in verdicts(entries[name])]
    assert verdict in (worst or verdicts(entries[name]))
    if op:
        assert finding["blame"]["op"] == op
        assert text in finding["blame"]["text"]
        assert finding["blame"]["file"].startswith("tests/cases/torch/")
    if code in ("GC202", "GC205", "GC206"):
        assert finding["proof"]


@pytest.mark.parametrize("name", [*CLEAN, "native-torch-lstm"])
def test_what_is_right_has_no_finding(entries, name):
    assert verdicts(entries[name]) == {"pass"}
    assert entries[name]["findings"] == []


def test_a_float32_model_is_held_against_itself_in_float64(entries):
    checks = entries["float32-linear"]["checks"]
    assert {(check["dtype"], check["reference"]) for check in checks} == {("float32", "finite differences in float64")}


def test_a_step_runs_under_both_rollouts_and_parameters_keep_their_names(entries):
    checks = entries["scanned-cell"]["checks"]
    assert {check["backend"] for check in checks} == {"torch-scan", "torch-unroll"}
    assert {check["parameter"] for check in checks} == {"cell.W", "cell.b", "readout[0]"}
    names = {check["parameter"] for check in entries["native-torch-lstm"]["checks"]}
    assert {"encoder.weight", "cell.weight_hh", "norm.bias"} <= names


# --- bad input --------------------------------------------------------------------------------------------------------

HEAD = "import numpy as np\nimport torch\nfrom torch import nn\n\n\ndef build():\n    "
BAD = {  # what `build` does -> part of what the user is told
    "raises": ("raise RuntimeError('no weights here')", "no weights here"),
    "strange": ("return {'loss': abs, 'params': nn.Linear(1, 1), 'parms': 2}", "unknown key 'parms'"),
    "vector": ("return {'loss': lambda p: p['a'] * 2, 'params': {'a': torch.ones(3)}}", "it has to be a scalar"),
    "integer": ("return {'loss': lambda p: p['a'].long().sum(), 'params': {'a': torch.ones(3)}}", "is int64"),
    "collide": (
        "return {'loss': lambda p: p['a.b'], 'params': {'a.b': torch.ones(1), 'a': {'b': torch.ones(1)}}}",
        "two parameters are called 'a.b'",
    ),
    "nothing": ("return {'loss': lambda p: torch.ones(()), 'params': {}}", "no parameter to differentiate by"),
    "half": (
        "return {'loss': lambda p: p['a'].float().sum(), 'params': {'a': torch.ones(3, dtype=torch.bfloat16)}}",
        "'a' is bfloat16: only float32 and float64",
    ),
    "meta": (
        "return {'loss': lambda m: m(torch.ones(2)).sum(), 'params': nn.Linear(2, 1, device='meta')}",
        "is on the device meta",
    ),
    "lazy": ("return {'loss': lambda m: m(torch.ones(2)).sum(), 'params': nn.LazyLinear(1)}", "has no shape yet"),
    "computed": (
        "return {'loss': lambda p: p['a'].sum(), 'params': {'a': 2 * torch.ones(3, requires_grad=True)}}",
        "'a' is computed from others",
    ),
    "unending": (
        "return {'step': lambda p, c, x: (c, c), 'carry': torch.zeros(2), 'params': {'a': torch.ones(2)}}",
        "number of steps is not known",
    ),
    "no_pair": (
        "return {'step': lambda p, c, x: c, 'carry': torch.zeros(2), 'length': 3, 'params': {'a': torch.ones(2)}}",
        "not (carry, output)",
    ),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name, (body, _) in BAD.items():
        (folder / f"{name}.py").write_text(f"{HEAD}{body}\n")
        (folder / f"{name}.yaml").write_text(f"name: {name}\nstep: {{framework: torch, build: {name}.py:build}}\n")
    done = gradcheck("run", folder, "-b", "torch-unroll", "--json", "-", cwd=folder)
    return done.returncode, {entry["name"]: entry for entry in json.loads(done.stdout)["cases"]}


@pytest.mark.parametrize("name", BAD)
def test_a_model_that_cannot_be_built_is_told_in_one_finding(told, name):
    code, entries = told
    assert code == 3
    (finding,) = entries[name]["findings"]
    assert finding["code"] == "GC905"
    assert BAD[name][1] in finding["because"]
    assert verdicts(entries[name]) == {"not_run"}


# --- size, and what is left behind ------------------------------------------------------------------------------------

LARGE = """\
import torch
from torch import nn


def build():
    model = nn.Sequential(nn.Linear(500, 1000), nn.Tanh(), nn.Linear(1000, 500))
    data = torch.linspace(-1, 1, 1000).reshape(2, 500)
    return {"loss": lambda model, data: model(data).square().mean(), "params": model, "args": [data]}
"""


def test_a_million_parameters_take_at_most_60_forward_evaluations(tmp_path):
    (tmp_path / "large.py").write_text(LARGE)
    (tmp_path / "large.yaml").write_text("name: large\nstep: {framework: torch, build: large.py:build}\n")
    done = gradcheck("run", "large.yaml", "--json", "-", cwd=tmp_path)
    report = json.loads(done.stdout)
    (entry,) = report["cases"]
    sizes = {check["parameter"]: check["shape"] for check in entry["checks"]}
    assert sum(rows * columns for rows, columns in (shape for shape in sizes.values() if len(shape) == 2)) == 10**6
    assert verdicts(entry) == {"pass"}
    (backend,) = (b for b in report["backends"] if b["forward_evaluations"])
    assert backend["forward_evaluations"] <= 60
    assert backend["framework"] == "torch"


RESTORED = '''\
"""Asks an adapter for all that it offers, and looks at the model's state before and after, bit for bit."""

import contextlib
import random
import sys

import numpy as np
import torch
from gradcheck_worker import native, serve
from torch import nn

adapter = serve.load_adapter(sys.argv[1])
task = {"name": "", "seed": 3, "dtype": "float32", "options": {}, "wrt": [], "widen": False, "open_stops": False,
        "step_file": __file__, "function": "build"}
kept = {}


def loss(model, data):
    data.add_(0.1)
    model.train()
    model[0].weight.data.clamp_(-0.4, 0.4)
    noise = torch.rand(4) * np.random.rand() * random.random()
    return (model(data) * noise).square().sum()


def build():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[2].eval()
    model[0].bias.grad = torch.full((4,), 7.0)
    kept.update(model=model, data=torch.ones(5, 3))
    return {"loss": loss, "params": model, "args": [kept["data"]]}


def state():
    model = kept["model"]
    tensors = [kept["data"], *model.parameters(), *model.buffers(), model[0].bias.grad]
    return (
        [t.detach().numpy().tobytes() for t in tensors],
        [(p.requires_grad, p.grad is None) for p in model.parameters()],
        [m.training for m in model.modules()],
        (torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes(), random.getstate()),
        torch.get_default_dtype(),
    )


torch.manual_seed(11)
sys.modules["__main__"].build = build
from gradcheck_worker import problem

problem.load_step = native.load_step = lambda *given: build
built = native.NativeProblem(task, "unroll")
generators = torch.get_rng_state().clone()
model = adapter.prepare_native(built)
assert torch.equal(generators, torch.get_rng_state())
before = state()
arrays = {name: array + 0.01 for name, array in built.arrays.items()}
first = model.values(arrays)
model.gradients(arrays), model.tangents(built.arrays, {"0.bias": np.ones(4)})
model.nodes(), model.births(), model.composed(), model.discrepancies()
with contextlib.suppress(RuntimeError):  # what is written by way of .data cannot be let through
    model.composed(open_stops=True)
model.frozen(arrays), model.redrawn(arrays, [0, 1])
assert model.values(arrays) == first
assert state() == before
print("restored")
'''


def test_the_state_of_a_model_is_put_back_bit_for_bit(tmp_path):
    from gradcheck.catalog import load_backends
    from gradcheck.environments import resolve

    backend, _ = load_backends()["torch-unroll"]
    (tmp_path / "gradcheck_worker").symlink_to(ROOT / "backends" / "_worker")
    (tmp_path / "restored.py").write_text(RESTORED)
    python = resolve(backend, given=None, offline=False).python
    command = [str(python), str(tmp_path / "restored.py"), str(backend.folder / "adapter.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout == "restored\n", done.stderr

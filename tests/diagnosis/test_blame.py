"""The culprit's line on JAX: each case has one defect at one line, and the finding must name exactly that line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradcheck.case_file import load
from gradcheck.catalog import load_backends
from gradcheck.crew import Crew
from gradcheck.data import arrays
from gradcheck.diagnosis.blame import inspected
from gradcheck.diagnosis.scene import Scene
from gradcheck.laboratory import Laboratory
from gradcheck.workers import Limits

pytestmark = pytest.mark.backend

CASE = """\
name: {name}
step: {name}.py:step
steps: 4
dims: {{n: 3}}
sequences: {{x: {{shape: [n], init: {{uniform: [0.2, 1]}}}}}}
carry: {{h: {{shape: [n], init: {{uniform: [0.2, 1]}}}}}}
parameters: {{w: {{shape: [n], init: {{uniform: [0.5, 1]}}}}, u: {{shape: [n], init: {{uniform: [0.5, 1]}}}}}}
objectives: {{h: {{of: h, reduce: dot, wrt: [w, u]}}{more}}}
backends: {backends}
"""

# name: (backends, code, text of the culprit line, op, step file); the marker is put on the line that must be named
STEPS = {
    "wrong_vjp": (["jax-scan", "jax-unroll"], "GC206", "custom_vjp wave", """
import jax
import jax.numpy as jnp


@jax.custom_vjp
def wave(x, y):
    return jnp.sin(x) * y * y


wave.defvjp(lambda x, y: (wave(x, y), (x, y)), lambda r, ct: (ct * jnp.cos(r[0]) * r[1] ** 2, ct * jnp.sin(r[0]) * r[1]))


@jax.jit
def behind(h, w):
    return 0.5 * wave(h, w)  # culprit


def step(xp, x, h, w, u):
    return {"h": xp.tanh(behind(h, w) + u * x) + xp.where(x > 2, xp.exp(h), u) + xp.softmax(w * u)}
"""),
    "wrong_jvp": (["jax-scan"], "GC206", "custom_jvp cube", """
import jax


@jax.custom_jvp
def cube(x):
    return x**3


cube.defjvp(lambda primals, tangents: (cube(*primals), 3 * primals[0] * tangents[0]))


def step(xp, x, h, w, u):
    inner = jax.lax.cond(h[0] > -9, lambda v: cube(v), lambda v: v, w * h)  # culprit
    return {"h": 0.3 * xp.sin(inner) + u * x}
"""),
    "stopped": (["jax-scan"], "GC205", "stop_gradient", """
from jax.lax import stop_gradient as constant


def step(xp, x, h, w, u):
    kept = constant(h)  # culprit
    return {"h": xp.tanh(kept * w + u * x) + 0.1 * h}
"""),
    "branch": (["jax-scan", "jax-unroll"], "GC301", "log", """
import jax.numpy as jnp


def step(xp, x, h, w, u):
    shifted = w * (x - x)
    safe = jnp.log(shifted) + u  # culprit
    return {"h": 0.5 * h + u * w, "spoilt": jnp.where(x > 9, 2.0 * safe, w) * u}
"""),
    "singular": (["jax-scan"], "GC302", "sqrt (in norm)", """
import jax.numpy as jnp


def step(xp, x, h, w, u):
    size = jnp.linalg.norm(w - w)  # culprit
    return {"h": 0.5 * h + size**2 + u * w}
"""),
    "loop": (["jax-scan"], "GC105", "while", """
import jax


def step(xp, x, h, w, u):
    _, grown = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * w), (0, h))  # culprit
    return {"h": 0.5 * grown + u}
"""),
    "callback": (["jax-scan"], "GC102", "pure_callback", """
import jax
import numpy as np


def step(xp, x, h, w, u):
    outside = jax.pure_callback(lambda a: np.sin(a), h, h * w)  # culprit
    return {"h": 0.5 * outside + u}
"""),
    "raises": (["jax-scan"], "GC102", "custom_vjp wave", """
import jax
import jax.numpy as jnp


@jax.custom_vjp
def wave(x):
    return jnp.sin(x)


def backward(kept, ct):
    raise NotImplementedError("not written yet")


wave.defvjp(lambda x: (wave(x), x), backward)


def step(xp, x, h, w, u):
    return {"h": 0.5 * wave(h * w) + u}  # culprit
"""),
    "overflow": (["jax-scan"], "GC303", "exp", """
def step(xp, x, h, w, u):
    grown = 0.1 * h + xp.exp(900.0 + w)  # culprit
    return {"h": grown + u}
"""),
    "surrogate": (["jax-scan"], "GC703", "custom_vjp quantised", """
import jax
import jax.numpy as jnp


@jax.custom_vjp
def quantised(x):
    return jnp.round(8 * x) / 8


quantised.defvjp(lambda x: (quantised(x), None), lambda _, ct: (ct,))


def step(xp, x, h, w, u):
    return {"h": 0.5 * u * w + quantised(0.7 * w)}  # culprit
"""),
    "clean": (["jax-scan", "jax-unroll"], "", "", """
import jax
import jax.numpy as jnp


@jax.custom_vjp
def clipped(x):
    return x * 1.0


clipped.defvjp(lambda x: (clipped(x), None), lambda _, ct: (jnp.clip(ct, -1e9, 1e9),))


def step(xp, x, h, w, u):
    safe = jnp.sqrt(jnp.where(x > 0.5, x * w, 1.0))
    return {"h": jax.checkpoint(jnp.tanh)(clipped(h) * w) + jnp.where(x > 0.5, safe, x) * u}
"""),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("blame")
    for name, (backends, _, _, text) in STEPS.items():
        more = ", spoilt: {of: spoilt, reduce: dot, wrt: [w, u]}" if "spoilt" in text else ""
        (root / f"{name}.py").write_text(text)
        (root / f"{name}.yaml").write_text(CASE.format(name=name, backends=json.dumps(backends), more=more))
    return root


@pytest.fixture(scope="module")
def report(folder):
    command = [sys.executable, "-m", "gradcheck", "run", ".", "--json", "-"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    return {case["name"]: case for case in json.loads(ran.stdout)["cases"]}


@pytest.mark.parametrize("name", [name for name in STEPS if STEPS[name][1]])
def test_the_culprit_is_named_with_its_line(report, folder, name):
    backends, code, op, text = STEPS[name]
    (told,) = report[name]["findings"]
    (line,) = [number for number, row in enumerate(text.splitlines(), 1) if "# culprit" in row]
    row = text.splitlines()[line - 1]
    assert (told["code"], told["backends"]) == (code, backends)
    assert (told["blame"]["file"], told["blame"]["line"], told["blame"]["op"]) == (f"{name}.py", line, op)
    assert told["blame"]["text"] == row.strip()
    assert row[told["blame"]["column"] - 1] != " "
    if code != "GC102":
        assert told["because"]


def test_what_is_right_has_no_finding(report):
    assert report["clean"]["findings"] == []
    assert {c["verdict"] for c in report["clean"]["checks"]} == {"pass"}


def test_one_objective_does_not_spoil_the_other(report):
    """Each is pulled back by itself: a zero for the other one, times its infinite derivative, would be NaN."""
    found = {(c["backend"], c["objective"], c["parameter"]): c["verdict"] for c in report["branch"]["checks"]}
    for backend in ("jax-scan", "jax-unroll"):
        assert [found[backend, "h", name] for name in "wu"] == ["pass", "pass"]
        assert [found[backend, "spoilt", name] for name in "wu"] == ["nonfinite", "pass"]


def test_proofs_are_runs(report):
    proofs = {name: case["findings"][0]["proof"] for name, case in report.items() if case["findings"]}
    assert (
        "derivative of its own forward in place of the rule, the gradient agrees with the differences"
        in proofs["wrong_vjp"]
    )
    assert "stop_gradient as the identity" in proofs["stopped"]
    assert "with what that side contributes left out, all 2 of these gradients agree" in proofs["branch"]
    born = {row["label"]: row["text"] for row in report["branch"]["findings"][0]["numbers"]}["born"]
    assert "cotangent in 0 exactly" in born


def test_only_the_gradient_that_the_rule_spoils_is_blamed(report):
    told = report["wrong_vjp"]["findings"][0]
    assert "by input 1[" in told["because"]
    assert "defined at wrong_vjp.py:6" in told["because"]


def test_right_ops_are_cleared():
    """Every op of a GRU, at its last, first and middle step."""
    path = Path(__file__).parents[2] / "cases" / "gru.yaml"
    catalog = load_backends(())
    case = load(path, {b.name for b, _ in catalog.values()}, lambda case: [])
    with Crew(catalog, given={}, offline=False, limits=Limits(), jobs=None, progress=lambda line: None) as crew:
        found = inspected(Scene(case, arrays(case), [], Laboratory(crew, 300.0)), "jax-scan")
        with crew.session(case, "jax-scan", arrays(case)) as session:
            whole = session.gradients()
    assert found.composed.keys() == whole.keys()
    for pair, gradient in whole.items():  # what the ops' own rules compose is what JAX does with the whole
        np.testing.assert_allclose(found.composed[pair].array, gradient.array, rtol=1e-9, atol=1e-12)
    assert (found.wrong, found.unsure, found.unlooked, found.why) == ([], [], [], "")
    assert len(found.cleared) == len(found.examinable) > 30
    assert {n.place for n in found.examinable if n.file} == {f"gru.py:{line}" for line in (6, 7, 8, 9, 12, 13)}

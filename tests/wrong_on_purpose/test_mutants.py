"""Mutated gradients: every fingerprint is recognised, with its factor, axis, step or op, and nothing else is called one.

The mutants are made by the fake backend, whose gradients are exact but for the fault, in one run. On real frameworks: see
tests/diagnosis/test_mutants.py.
"""

from __future__ import annotations

from collections import Counter

import pytest

from gradcheck.pipeline import Settings, run
from gradcheck.workers import Limits

CASE = """
name: {name}
step: step.py:step
steps: 7
seed: {seed}
dims: {{batch: 3, input: 5, hidden: 4}}
sequences: {{x: {{shape: [batch, input], init: normal}}}}
carry: {{h: {{shape: [batch, hidden], init: normal}}}}
parameters:
  W_x: {{shape: [input, hidden], init: glorot}}
  W_h: {{shape: [hidden, hidden], init: glorot}}
  b: {{shape: [hidden], init: {{normal: 0.3}}}}
objectives:
  h: {{of: h, reduce: {reduce}, wrt: [{wrt}]}}
options: {{fake: {{fault: "{fault}"}}}}
"""
STEP = '''
"""A leaky RNN of three branches."""


def step(xp, x, h, W_x, W_h, b):
    a = xp.tanh(x @ W_x + h @ W_h)
    c = xp.exp(-0.3 * (h @ W_h) + b)
    d = xp.sqrt(2.0 + (x @ W_x) ** 2 + h * h)
    return {"h": 0.4 * a + 0.2 * c + 0.1 * d}
'''
ALL = "W_x, W_h, b"
# family: [(fault, wrt, code, what the title or the reason has to say)]
FACTORS = {
    "2": "2", "0.5": "1/2", "0.3333333333333333": "1/batch", "3": "batch", "0.14285714285714285": "1/steps", "7": "steps",
    "0.047619047619047616": "1/(steps*batch)", "6": "steps-1", "1.5": "batch/(batch-1)", "65536": "2^16 (a loss scale)",
}  # fmt: skip
MUTANTS = {
    "factor": [(f"times {f}", ALL, "GC204", f"{float(f):.6g}, which equals {name}") for f, name in FACTORS.items()],
    "sign": [(f"times -1 {n}", f"{ALL}, x, h", "GC204", "wrong sign") for n in
             ("W_x", "W_h", "b", "x", "h", "W_x,b", "W_h,b", "x,h", "W_x,W_h,b", "W_x,W_h,b,x,h")],
    "axis": [
        ("order transposed 1 W_h", ALL, "GC207", "transposed (axes 0 and 1)"),
        ("order transposed -1 W_h", ALL, "GC207", "transposed (axes 0 and 1), times -1"),
        ("order transposed 0.3333333333333333 W_h", ALL, "GC207", "times 0.333333, which equals 1/batch"),
        ("order reversed0 1 W_x", ALL, "GC207", "reversed along axis 0"),
        ("order reversed1 1 W_h", ALL, "GC207", "reversed along axis 1"),
        ("order reversed1 2 x", f"{ALL}, x", "GC207", "reversed along axis 1, times 2"),
        ("order shifted0 1 x", f"{ALL}, x", "GC207", "along axis 0"),
        ("order shifted1 1 W_x", ALL, "GC207", "along axis 1"),
        ("order columns 1 W_x", ALL, "GC207", "stored in column order"),
        ("order reversed0 -1 b", ALL, "GC207", "reversed along axis 0, times -1"),
    ],
    "sum too many": [(f"summed {axis} {how} {n}", f"{ALL}, x, h", "GC201", f"the {how} over axis {axis}") for axis, how, n in
                     ((0, "sum", "W_x"), (1, "sum", "W_x"), (0, "mean", "W_x"), (1, "mean", "W_x"), (0, "mean", "W_h"),
                      (1, "sum", "W_h"), (0, "sum", "x"), (1, "mean", "x"), (2, "sum", "x"), (0, "mean", "h"))],
    "truncation": [(f"history {k}", ALL, "GC203", f"steps 0 to {k - 1} contribute is missing" if k > 1 else "step 0") for k in
                   (1, 2, 3, 4, 5)]
                  + [(f"cut window {k}", f"{ALL}, h", "GC203", f"a truncation to {k} steps") for k in (2, 3, 4, 5, 6)],
    "lost carry": [("cut all 0", f"{ALL}, x, h", "GC203", "a truncation to 1 step") for _ in range(3)]
                  + [(f"cut once {k}", f"{ALL}, h", "GC203", f"lost between steps {k - 1} and {k}") for k in (1, 2, 4, 6)]
                  + [(f"cut every {k}", f"{ALL}, x", "GC203", f"a truncation to at most {k} steps") for k in (2, 3, 2)],
    "step": [(f"bad_step {t}", ALL, "GC201", f"time steps {t}") for t in (1, 2, 3, 4, 5, 6, 1, 3, 5, 6)],
    "slice of a sum": [(f"slice {a} {k}", f"{ALL}, h", "GC205", f"that of {place} alone") for a, k, place in
                       ((0, 0, "step 0"), (0, 6, "step 6"), (1, 0, "index 0 of axis 0 of h"), (1, 2, "index 2 of axis 0 of h"),
                        (2, 1, "index 1 of axis 1 of h"))]
                      + [(f"without {a} {k}", f"{ALL}, h", "GC205", f"lacks what {place} contributes") for a, k, place in
                         ((0, 5, "step 5"), (0, 6, "step 6"), (1, 0, "index 0 of axis 0 of h"), (1, 1, "index 1 of axis 0 of h"),
                          (2, 3, "index 3 of axis 1 of h"))],
    "precision": [(f"rounded {name}", wrt, "GC201", f"as rounded to {name}") for name in ("float32", "float16")
                  for wrt in (ALL, "W_x", "W_h", "x", "h")],
    "op": [(f"branch {op} ops=right", wrt, "GC205", f"what comes through {op} at step.py:{line}") for wrt in (ALL, "W_h", "h")
           for op, line in (("tanh", 5), ("exp", 6), ("sqrt", 7))] + [("branch exp ops=right", "b", "GC205", "exp at step.py:6")],
    "other errors": [(fault, ALL, "GC201", "") for fault in (
        "one_entry", "entry W_h 3 0.01", "entries W_x 3=0.1,5=1.0", "row W_h 1 1.01", "entries W_h 0=1e-3,1=1e-3,7=2.0", "zero",
        "bad_step 2 ops=right", "row W_x 2 -1", "entry b 1 1e-4", "entries W_x 3=0.1,15=-1.0")],
    "right": [(fault, f"{ALL}, x, h", "", "") for fault in ("", "forward", "complex", "ops=right", "healthy") for _ in range(2)],
}  # fmt: skip
STATED = ("GC202", "GC203", "GC204", "GC205", "GC206", "GC207")
TESTED = ("each entry of the gradient is", "rounded to")  # titles of fingerprints without a code of their own


@pytest.fixture(scope="module")
def outcome(shared_bench):
    (shared_bench.folder / "step.py").write_text(STEP)
    for family, mutants in MUTANTS.items():
        for k, (fault, wrt, _, _) in enumerate(mutants):
            name = f"{family.replace(' ', '_')}-{k}"
            reduce = ("dot", "sum", "mean")[k % 3] if family != "slice of a sum" else ("dot", "mean")[k % 2]
            text = CASE.format(name=name, seed=k, fault=fault, wrt=wrt, reduce=reduce)
            (shared_bench.folder / f"{name}.yaml").write_text(text)
    settings = Settings(
        backends=("fake",), default_backends=("fake",), extra_backends=(shared_bench.backends,), limits=Limits(60, None)
    )
    report = run(sorted(shared_bench.folder.glob("*-*.yaml")), settings)
    return {case.name: case for case in report.cases}


def right(case, code, said):
    """Whether all failing checks are in findings of this code alone that say what they must."""
    if not code:
        return case.findings == ()
    codes = {f.code for f in case.findings}
    if codes != {code}:
        return False
    if said.startswith("time steps "):
        return {c.time_steps for c in case.checks if c.failing and c.time_steps} == {(int(said[11:]),) * 2}
    if not said:
        return not any(word in f.title for f in case.findings for word in TESTED)
    return all(said in f"{f.title} {f.because}" for f in case.findings)


def test_mutants_get_the_right_code_with_what_was_planted(outcome, capsys):
    hits, missed = Counter(), []
    for family, mutants in MUTANTS.items():
        assert len(mutants) == 10, family
        for k, (fault, _, code, said) in enumerate(mutants):
            case = outcome[f"{family.replace(' ', '_')}-{k}"]
            if right(case, code, said):
                hits[family] += 1
            else:
                missed.append((family, fault, said, [(f.code, f.title, f.because) for f in case.findings]))
    with capsys.disabled():
        print("\n" + "\n".join(f"{family:16} {hits[family]} of 10" for family in MUTANTS))
        print("\n".join(map(str, missed)))
    assert all(hits[family] == 10 for family in ("other errors", "right")), missed  # a false claim is worse than a miss
    assert sum(hits.values()) >= 0.95 * 10 * len(MUTANTS)
    assert min(hits.values()) >= 9

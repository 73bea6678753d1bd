"""Reverse rules that are wrong in a known way, on real frameworks: the code, the line, and what was planted have to be told.

Native JAX models whose custom_vjp is the derived rule with one change; and copies of shipped cases whose step has such a rule, in
JAX and as a Theano Op. All in one run. Wrong gradients without a rule to blame: see tests/wrong_on_purpose/test_mutants.py.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend

CASES = Path(__file__).parents[2] / "cases"

NATIVE = '''
import functools

import jax
import jax.numpy as jnp
import numpy as np


def is_float(x):
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def derived(forward, kept, ct):
    """The cotangents that JAX derives; None of integers."""
    moving = [k for k, x in enumerate(kept) if is_float(x)]

    def moved(*parts):
        full = list(kept)
        for k, part in zip(moving, parts):
            full[k] = part
        return forward(*full)

    found = dict(zip(moving, jax.vjp(moved, *(kept[k] for k in moving))[1](ct)))
    return [found.get(k) for k in range(len(kept))]


def mutant(forward, change):
    """The function with the derived rule, changed: change(kept, ct, its cotangents) -> cotangents."""
    wrong = jax.custom_vjp(forward)
    wrong.defvjp(lambda *a: (forward(*a), a), lambda kept, ct: tuple(change(kept, ct, derived(forward, kept, ct))))
    return wrong


def at(index, how):
    """Change one cotangent."""
    return lambda kept, ct, found: [how(kept, ct, c) if k == index else c for k, c in enumerate(found)]


def only(forward, index, mask):
    """One cotangent as the masked result gives it."""
    return at(index, lambda kept, ct, c: derived(forward, kept, ct * mask)[index])


def mix(a, b, c):
    return jnp.sin(a) * b + c


def gather(p, i):
    return jnp.sin(p[i]) * 0.7


def put(a, b, i):
    return jnp.cos(a).at[i].set(b * b)


def branched(a, b, c):
    return branches(a, b, c, "")


def branches(a, b, c, lost):
    first = held(lost == "first", jnp.sin(a) * b)
    second = held(lost == "second", jnp.exp(0.3 * a + c))
    taken = held(lost == "taken", a * a)
    other = held(lost == "other", jnp.cos(b))
    chosen = jnp.where(c > 0, taken, other)
    return first + second + chosen


def held(still, x):
    return 0.0 * x if still else x


def first_of(i):
    return np.isin(np.arange(i.size), np.unique(i, return_index=True)[1])[:, None].astype(float)


CHANGES = {
    "times": lambda arg, f: (mix, at(arg, lambda kept, ct, c: f * c)),
    "transposed": lambda arg, f: (mix, at(arg, lambda kept, ct, c: f * c.T)),
    "reversed": lambda arg, axis: (mix, at(arg, lambda kept, ct, c: jnp.flip(c, axis))),
    "rounded": lambda arg, name: (mix, at(arg, lambda kept, ct, c: c.astype(name).astype(c.dtype))),
    "slice": lambda arg, index: (mix, only(mix, arg, jnp.zeros((4, 1)).at[index].set(1.0))),
    "branch": lambda arg, lost: (branched, lambda kept, ct, found: derived(functools.partial(branches, lost=lost), kept, ct)),
    "gather": lambda indices, which: (gather, only(gather, 0, kept_of(indices, which))),
    "put": lambda indices, which: (put, at(1, lambda kept, ct, c: 2 * kept[1] * ct[kept[2]])),
}


def kept_of(indices, which):
    i = np.array(indices)
    return first_of(i) if which == "first" else first_of(i[::-1])[::-1]


def model(kind, one, two, seed):
    draw = np.random.default_rng(seed)
    p, q = (jnp.asarray(draw.normal(size=(4, 4))) for _ in range(2))
    forward, change = CHANGES[kind](one, two)
    op = mutant(forward, change)
    indices = jnp.array(one) if kind in ("gather", "put") else None

    def loss(params):
        p, q = params["p"], params["q"]
        arguments = {"gather": (p, indices), "put": (p, q[: np.size(one)], indices)}
        y = op(*arguments.get(kind, (p, q, p[0] * q[1])))  # culprit
        return jnp.sum(y * jnp.cos(jnp.arange(float(y.size)).reshape(y.shape)))

    return {"loss": loss, "params": {"p": p, "q": q}}
'''

RULES = '''
import jax
import jax.numpy as jnp


def rule(forward, change):
    """change(kept, ct) -> cotangents."""
    wrong = jax.custom_vjp(forward)
    wrong.defvjp(lambda *a: (forward(*a), a), change)
    return wrong


lost = rule(lambda h, t: h * 1.0, lambda r, ct: (0.0 * ct, 0.0 * r[1]))
lost_at_4 = rule(lambda h, t: h * 1.0, lambda r, ct: (ct * (r[1] != 4), 0.0 * r[1]))
lost_every_3 = rule(lambda h, t: h * 1.0, lambda r, ct: (ct * (r[1] % 3 != 0), 0.0 * r[1]))
third_tanh = rule(jnp.tanh, lambda r, ct: (ct * (1 - jnp.tanh(r[0]) ** 2) / 3,))
linear = rule(lambda x, W: x @ W, lambda r, ct: (ct @ r[1].T, (r[0].T @ ct).T))
'''

OPS = '''
import numpy as np
import theano
import theano.tensor as T


class Wrong(theano.graph.op.Op):
    """An op of numpy functions: forward, and a reverse rule of Theano's words."""

    __props__ = ("name",)

    def __init__(self, name, forward, rule):
        self.name, self.forward, self.rule = name, forward, rule

    def make_node(self, *inputs):
        inputs = [T.as_tensor_variable(v) for v in inputs]
        return theano.graph.basic.Apply(self, inputs, [inputs[0].type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.asarray(self.forward(*inputs))

    def grad(self, inputs, cotangents):
        return self.rule(*inputs, cotangents[0])


lost = Wrong("lost", lambda h, t: h * 1.0, lambda h, t, ct: [0.0 * ct, 0.0 * t])
lost_at_6 = Wrong("lost_at_6", lambda h, t: h * 1.0, lambda h, t, ct: [ct * T.neq(t, 6.0), 0.0 * t])
lost_every_3 = Wrong("lost_every_3", lambda h, t: h * 1.0, lambda h, t, ct: [ct * T.neq(t % 3.0, 0.0), 0.0 * t])
bias = Wrong("bias", lambda y, b: y + b, lambda y, b, ct: [ct, ct[0]])
minus = Wrong("minus", lambda x, W: x @ W, lambda x, W, ct: [-T.dot(ct, W.T), T.dot(x.T, ct)])
'''

INDICES = ([2, 0, 1, 2, 0], [1, 1, 3], [0, 3, 3, 3, 2, 0], [2, 2, 2, 2], [3, 1, 0, 1, 3, 1])
PUT = ([1, 1, 3], [2, 2, 2, 2], [0, 2, 0])
LINES = {"first": "first = ", "second": "second = ", "taken": "taken = ", "other": "other = "}
# family: [(spec of a native model, what the reason has to say)]
MODELS = {
    "sign of one argument": [(("times", k % 3, -1.0, k), f"by input {k % 3} that is the right one with the wrong sign")
                             for k in range(10)],
    "factor of one argument": [(("times", k % 3, f, k), f"by input {k % 3} that is {f:.6g} times the right one")
                               for k, f in enumerate((0.5, 0.25, 1.01, -2.0, 1 / 3))],
    "axis": [(("transposed", k % 2, f, k), "transposed (axes 0 and 1)") for k, f in enumerate((1.0, 1.0, -1.0, 0.5, 2.0))]
            + [(("reversed", k % 2, a, k), f"reversed along axis {a}") for k, a in ((1, 0), (2, 1), (3, 1), (4, 0))]
            + [(("reversed", 2, 0, 5), "reversed along axis 0")],
    "sum over an axis": [(("slice", 2, k % 4, k), f"by input 2 that is what index {k % 4} of axis 0 of its result gives alone")
                         for k in range(10)],
    "repeated indices": [(("gather", i, which, k), f"what the {which} of equal indices") for k, i in enumerate(INDICES)
                         for which in ("first", "last")][:7]
                        + [(("put", i, "", 5), "right for the last of equal indices") for i in PUT],
    "lost branch": [(("branch", 0, lost, k), f"one branch is lost: {lost}") for k in range(3) for lost in LINES][:10],
    "precision of one argument": [(("rounded", k % 3, "float16", k), f"by input {k % 3} that is the right one as rounded")
                                  for k in range(5)],
    "one argument lost": [(("times", k % 3, 0.0, k), f"by input {k % 3} that is 0 exactly") for k in range(5)],
}  # fmt: skip
HEAD = "    reset = xp.sigmoid"
COPIES = {  # of the GRU's step: (lines as they are, lines as they are mutated), code, what has to be said
    "lost": (HEAD, f"    h = lost(h, t)  # culprit\n{HEAD}", "GC203", "truncation to 1 step"),
    "lost_at_4": (HEAD, f"    h = lost_at_4(h, t)  # culprit\n{HEAD}", "GC203", "lost between steps 3 and 4"),
    "lost_at_6": (HEAD, f"    h = lost_at_6(h, t)  # culprit\n{HEAD}", "GC203", "lost between steps 5 and 6"),
    "lost_every_3": (HEAD, f"    h = lost_every_3(h, t)  # culprit\n{HEAD}", "GC203", "a truncation to at most 3 steps"),
    "third_tanh": ("xp.tanh(x @ W_c + (reset * h) @ U_c + b_c)", "third_tanh(x @ W_c + (reset * h) @ U_c + b_c)  # culprit",
                   "GC206", "0.333333 times the right one"),
    "bias": ("xp.tanh(x @ W_c + (reset * h) @ U_c + b_c)", "xp.tanh(bias(x @ W_c + (reset * h) @ U_c, b_c))  # culprit",
             "GC206", "index 0 of axis 0 of its result gives alone"),
    "linear": ("(reset * h) @ U_c + b_c)", "linear(reset * h, U_c) + b_c)  # culprit", "GC207", "transposed (axes 0 and 1)"),
    "minus": ("(reset * h) @ U_c + b_c)", "minus(reset * h, U_c) + b_c)  # culprit", "GC206",
              "by input 0 that is the right one with the wrong sign"),
}  # fmt: skip
COPIED = {
    "jax": ("lost", "lost_at_4", "third_tanh", "linear"),
    "theano": ("lost", "lost_at_6", "lost_every_3", "bias", "minus"),
}
OBJECTIVES = {  # of each copy: those that its mutant spoils
    "linear": "hidden: {of: h, reduce: dot, wrt: [U_c, W_c]}",
    "bias": "hidden: {of: h, reduce: dot, wrt: [b_c, W_c]}",
}


def copies(folder):
    step = (CASES / "gru.py").read_text()
    case = (CASES / "gru.yaml").read_text()
    for framework, rules in (("jax", RULES), ("theano", OPS)):
        for name in COPIED[framework]:
            before, after, _, _ = COPIES[name]
            assert before in step
            mutated = f"{framework}_{name}"
            (folder / f"{mutated}.py").write_text(rules + step.replace(before, after))
            wrt = OBJECTIVES.get(name, "hidden: {of: h, reduce: dot, wrt: [W_c, x]}")
            text = case.replace("gru.py:", f"{mutated}.py:").replace("name: gru", f"name: {mutated}")
            text = text.split("objectives:")[0].replace("[3, 9]", "[7, 9]")  # sequences that reach the last steps
            (folder / f"{mutated}.yaml").write_text(f"{text}objectives:\n  {wrt}\nbackends: [{framework}-scan]\n")


def models(folder):
    specs = {
        f"{family.replace(' ', '_')}_{k}": spec for family, rows in MODELS.items() for k, (spec, _) in enumerate(rows)
    }
    builds = [f"def build_{name}():\n    return model(*{spec!r})\n" for name, spec in specs.items()]
    (folder / "models.py").write_text("\n\n".join([NATIVE, *builds]))
    for name in specs:
        text = f"name: {name}\nstep: {{framework: jax, build: models.py:build_{name}}}\n"
        (folder / f"{name}.yaml").write_text(text)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutants")
    models(folder)
    copies(folder)
    command = [sys.executable, "-m", "gradcheck", "run", ".", "--json", "-", "--diagnose-seconds", "60"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    cases = json.loads(ran.stdout)["cases"]
    return {case["name"]: [f for f in case["findings"] if f["severity"] != "advice"] for case in cases}


def spoken(findings):
    return " ".join(f"{f['title']} {f['because']} {f['proof']}" for f in findings)


def right(findings, codes, said):
    """Whether there are findings of these codes alone, at the culprit's line, that say this."""
    places = all(f["blame"] and "# culprit" in f["blame"]["text"] for f in findings)
    return bool(findings) and {f["code"] for f in findings} <= codes and places and said in spoken(findings)


def test_the_right_code_the_line_and_what_was_planted(report, capsys):
    hits, count, missed = Counter(), Counter(), []
    for family, rows in MODELS.items():
        for k, ((*_, kind, _), said) in enumerate(rows):
            name = f"{family.replace(' ', '_')}_{k}"
            if family == "lost branch":
                line = next(n for n, row in enumerate(NATIVE.splitlines(), 1) if LINES[kind] in row)
                said = f"models.py:{line}"
            judge(name, family, report[name], {"GC206", "GC204", "GC207"}, said, hits, count, missed)
    for framework in ("jax", "theano"):
        for name in COPIED[framework]:
            *_, code, said = COPIES[name]
            judge(
                f"{framework}_{name}",
                f"copies in {framework}",
                report[f"{framework}_{name}"],
                {code},
                said,
                hits,
                count,
                missed,
            )
    with capsys.disabled():
        print("\n" + "\n".join(f"{family:26} {hits[family]} of {count[family]}" for family in count))
        print("\n".join(f"missed {m}" for m in missed))
    assert sum(hits.values()) >= 0.95 * sum(count.values())


def judge(name, family, findings, codes, said, hits, count, missed):
    count[family] += 1
    if right(findings, codes, said):
        hits[family] += 1
    else:
        told = [
            (f["code"], f["title"], (f["blame"] or {}).get("text"), re.sub(r"\s+", " ", f["because"])) for f in findings
        ]
        missed.append((name, said, told))

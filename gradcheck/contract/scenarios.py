"""What a case may hold, on every backend: each combination passes, and its values are those of a plain NumPy loop."""

from __future__ import annotations

import ast
from functools import partial

import numpy as np

from gradcheck._backends._worker.names import XP_NAMES
from gradcheck.contract.bench import Bench, Scenario, require
from gradcheck.model import Case, Verdict
from gradcheck.source import parse

RTOL = {"float64": 1e-12, "float32": 1e-5}  # of the sum of the terms' magnitudes

STEPS = """
import helper

HALF, TWO = 0.5, 2


def rnn(xp, x, h, W, U, b, **unused):
    h = xp.tanh(x @ W + h @ U + b)
    return {"h": h, "y": h * h, "z": xp.sum(h, axis=-1)}


def no_carry(xp, x, W):
    return {"y": xp.tanh(x @ W)}


def nothing_but_parameters(xp, h, U):
    return {"h": xp.tanh(h @ U)}


def unreached(xp, x, h, W, U, b):
    h = xp.tanh(h @ U)
    return {"h": h, "y": x * x, "fixed": xp.ones((2, 3)) * 2.0, "reached": h + b}


def noisy(xp, x, h, eps, W, U, b):
    z = h @ U + xp.exp(HALF * b) * eps      # the noise is multiplied: its gradient has to read the draw
    h = xp.tanh(x @ W + z)
    return {"h": h, "y": z}


def additive(xp, x, h, W, U, b, **noise):
    h = xp.tanh(x @ W + h @ U + b)
    for name in sorted(noise):
        h = h + 0.3 * noise[name]
    return {"h": h, "y": h * h}


def several(xp, x, h, c, level, kept, W, U, b):
    gate = xp.sigmoid(x @ W + h @ U) if hasattr(xp, "sigmoid") else 1 / (1 + xp.exp(-(x @ W + h @ U)))
    c = gate * c + (1 - gate) * b
    level = 0.9 * level + xp.mean(c)
    return {"level": level, "h": xp.tanh(c) * level, "c": c, "kept": kept}


def scalars(xp, u, s, n, a, b):
    s = xp.tanh(a * s + b * u) + 0.1 * n
    return {"s": s, "y": a * s * s}


def masked(xp, t, x, h, lengths, flags, W, U, b):
    new = xp.tanh(x @ W + h @ U + b)
    h = xp.where((t < lengths)[:, None], new, h)
    return {"h": h, "y": xp.where(flags, h, 0.0)}


def embedded(xp, word, h, count, E, U):
    h = xp.tanh(xp.take(E, word, axis=0) + h @ U)
    return {"h": h, "count": count + 1}


def with_helper(xp, x, h, W, U, b):
    return {"h": helper.activation(xp, x @ W + h @ U + b)}


def extra_outputs(xp, x, h, W, U, b):
    h = xp.tanh(x @ W + h @ U + b)
    return {"first": x, "positive": h > 0, "h": h, "count": xp.sum(h > 0), "number": 1.5, "whole": 3, "y": h[0]}


def python_numbers(xp, x, h, W, U, b):
    h = TWO * xp.tanh((x @ W + h @ U) / 3 + b) ** 2 - HALF * h + 1
    return {"h": 1 - h / 2, "y": -(0.1 * h) ** 3 + TWO**-1}
"""
HELPER = "def activation(xp, x):\n    return xp.tanh(x) + 0.1 * x\n"

RNN = """
step: step.py:{step}
steps: {steps}
seed: {seed}
dtype: {dtype}
dims: {{batch: {batch}, input: {input}, hidden: {hidden}}}
sequences: {{x: {{shape: [batch, input], init: normal}}}}
carry: {{h: {{shape: [batch, hidden], init: {{normal: 0.5}}}}}}
parameters:
  W: {{shape: [input, hidden], init: glorot}}
  U: {{shape: [hidden, hidden], init: glorot}}
  b: {{shape: [hidden], init: {{normal: 0.3}}}}
  {more}
{sections}
objectives: {objectives}
"""
ALL_OF_H = "{hidden: {of: h, reduce: dot, wrt: [W, U, b, x, h]}}"


def rnn(
    step: str = "rnn",
    objectives: str = ALL_OF_H,
    *,
    steps: int = 5,
    dtype: str = "float64",
    batch: int = 2,
    input: int = 3,
    hidden: int = 3,
    more: str = "",
    sections: str = "",
    seed: int = 0,
) -> str:
    return RNN.format(**locals())


def noise(*entries: tuple[str, str, str]) -> str:
    return (
        "noise: {"
        + ", ".join(f"{n}: {{shape: [batch, hidden], draw: {d}, placement: {p}}}" for n, d, p in entries)
        + "}"
    )


NOISE_OBJECTIVES = "{hidden: {of: h, reduce: dot, wrt: [W, U, b, eps]}, y: {of: y, reduce: mean, wrt: [b, U, eps]}}"
ADDITIVE_OBJECTIVES = "{hidden: {of: h, reduce: dot, wrt: [W, U, b, x, h]}, y: {of: y, wrt: [W, U]}}"

SEVERAL = """
step: step.py:several
steps: 6
dtype: {dtype}
sequences: {{x: {{shape: [2, 3], init: normal}}}}
carry:
  kept: {{shape: [2], init: normal}}
  h: {{shape: [2, 4], init: zeros}}
  level: {{shape: [], init: {{value: 0.7}}}}
  c: {{shape: [2, 4], init: normal}}
parameters:
  W: {{shape: [3, 4], init: glorot}}
  U: {{shape: [4, 4], init: glorot}}
  b: {{shape: [1, 4], init: normal}}
objectives:
  h: {{of: h, reduce: dot, wrt: [W, U, b, c, level, h]}}
  level: {{of: level, at: last, wrt: [W, b, level, c]}}
  c: {{of: c, reduce: mean, wrt: [U, c]}}
  kept: {{of: kept, reduce: dot, wrt: [kept]}}
"""

SCALARS = """
step: step.py:scalars
steps: 7
dtype: {dtype}
sequences: {{u: {{shape: [], init: normal}}}}
carry: {{s: {{shape: [], init: {{value: 0.3}}}}}}
noise: {{n: {{shape: [], placement: {placement}}}}}
parameters: {{a: {{shape: [], init: {{value: 0.8}}}}, b: {{shape: [], init: {{value: -0.4}}}}}}
objectives:
  sum: {{of: s, wrt: [a, b, s, u]}}
  y: {{of: y, reduce: dot, at: 2, wrt: [a, b, s, u]}}
"""

MASKED = """
step: step.py:masked
steps: 6
dtype: {dtype}
sequences:
  t: {{shape: [], dtype: int64, init: {{value: [0, 1, 2, 3, 4, 5]}}}}
  x: {{shape: [4, 3], init: normal}}
carry: {{h: {{shape: [4, 3], init: normal}}}}
parameters: {{W: {{shape: [3, 3], init: glorot}}, U: {{shape: [3, 3], init: glorot}}, b: {{shape: [3], init: zeros}}}}
constants:
  lengths: {{shape: [4], dtype: int64, init: {{integers: [1, 7]}}}}
  flags: {{shape: [4, 1], dtype: bool, init: {{value: [[true], [false], [true], [true]]}}}}
objectives:
  hidden: {{of: h, reduce: dot, at: last, wrt: [W, U, b, x, h]}}
  y: {{of: y, reduce: mean, wrt: [W, h]}}
"""

EMBEDDED = """
step: step.py:embedded
steps: 5
dtype: {dtype}
sequences: {{word: {{shape: [3], dtype: int64, init: {{integers: [0, 6]}}}}}}
carry:
  count: {{shape: [], dtype: int64, init: zeros}}
  h: {{shape: [3, 4], init: zeros}}
parameters: {{E: {{shape: [6, 4], init: normal}}, U: {{shape: [4, 4], init: glorot}}}}
objectives: {{hidden: {{of: h, reduce: dot, wrt: [E, U, h]}}}}
"""

PLACES = """{
  all_sum: {of: h, wrt: [W, x, h]}, all_mean: {of: h, reduce: mean, wrt: [W, x, h]},
  all_dot: {of: y, reduce: dot, wrt: [W, x, h]}, last_sum: {of: h, at: last, wrt: [W, x, h]},
  last_mean: {of: y, reduce: mean, at: last, wrt: [U, x]}, last_dot: {of: h, reduce: dot, at: last, wrt: [b, h]},
  first_sum: {of: h, at: 0, wrt: [W, x, h]}, middle_mean: {of: z, reduce: mean, at: 2, wrt: [U, x, h]},
  middle_dot: {of: h, reduce: dot, at: 3, wrt: [W, U, b, x, h]}}"""

CASES = {
    "one-step": rnn(steps=1),
    "many-steps": rnn(steps=30),
    "one-step-float32": rnn(steps=1, dtype="float32"),
    "many-steps-float32": rnn(steps=30, dtype="float32"),
    "another-seed": rnn(seed=12345678901),
    "places-and-reductions": rnn(objectives=PLACES),
    "places-and-reductions-float32": rnn(objectives=PLACES, dtype="float32"),
    "unreached": rnn(
        "unreached",
        "{nothing: {of: y, wrt: [W, U, b]}, fixed: {of: fixed, reduce: dot, wrt: [W, U]}, "
        "some: {of: h, reduce: dot, wrt: [W, U, b, x]}, last: {of: reached, wrt: [b, U]}}",
    ),
    "shared-parameter": rnn(
        more="V: {shape: [hidden], init: ones}",
        objectives="{a: {of: h, wrt: [W, U]}, b: {of: y, reduce: dot, wrt: [U, W]}, c: {of: h, reduce: dot, wrt: [U]}}",
    ),
    "length-one-dims": rnn(batch=1, input=1, hidden=1, objectives=PLACES),
    "length-one-batch": rnn(batch=1, input=2, hidden=3, dtype="float32"),
    "length-one-hidden": rnn(batch=3, input=2, hidden=1),
    "noise-sequence": rnn("noisy", NOISE_OBJECTIVES, sections=noise(("eps", "normal", "sequence"))),
    "noise-sequence-uniform": rnn("noisy", NOISE_OBJECTIVES, sections=noise(("eps", "uniform", "sequence"))),
    "noise-non-sequence": rnn("noisy", NOISE_OBJECTIVES, sections=noise(("eps", "normal", "non_sequence"))),
    "noise-in-step": rnn("additive", ADDITIVE_OBJECTIVES, sections=noise(("eps", "normal", "in_step"))),
    "noise-in-step-uniform": rnn("additive", ADDITIVE_OBJECTIVES, sections=noise(("eps", "uniform", "in_step"))),
    "noise-in-every-place": rnn(
        "additive",
        ADDITIVE_OBJECTIVES,
        sections=noise(
            ("a", "normal", "in_step"),
            ("b1", "uniform", "in_step"),
            ("c", "uniform", "non_sequence"),
            ("d", "normal", "in_step"),
            ("e", "normal", "sequence"),
        ),
    ),
    "noise-in-step-one-step": rnn(
        "additive", ADDITIVE_OBJECTIVES, steps=1, seed=2**40 + 1, sections=noise(("eps", "normal", "in_step"))
    ),
    "noise-sequence-float32": rnn(
        "noisy", NOISE_OBJECTIVES, dtype="float32", sections=noise(("eps", "normal", "sequence"))
    ),
    "noise-in-step-float32": rnn(
        "additive", ADDITIVE_OBJECTIVES, dtype="float32", sections=noise(("eps", "normal", "in_step"))
    ),
    "helper-beside-the-step": rnn("with_helper"),
    "extra-outputs": rnn("extra_outputs", "{h: {of: h, reduce: dot, wrt: [W, U, x, h]}, y: {of: y, wrt: [W, b]}}"),
    "extra-outputs-float32": rnn("extra_outputs", "{h: {of: h, reduce: dot, wrt: [W, U]}}", dtype="float32"),
    "python-numbers": rnn("python_numbers", "{h: {of: h, reduce: dot, wrt: [W, U, b, x, h]}, y: {of: y, wrt: [W, U]}}"),
    "python-numbers-float32": rnn("python_numbers", "{h: {of: h, reduce: dot, wrt: [W, b]}}", dtype="float32"),
    "no-carry": """
step: step.py:no_carry
steps: 4
sequences: {x: {shape: [2, 3], init: normal}}
parameters: {W: {shape: [3, 2], init: glorot}}
objectives: {y: {of: y, reduce: dot, wrt: [W, x]}, last: {of: y, at: last, wrt: [W, x]}}
""",
    "equations": """
step: {equations: {gate: tanh(x @ W), kept: h, h: "tanh(gate * (h @ U) + 2 ** 0.5 * b)", y: "sum(h * kept, axis=-1)"}}
steps: 4
sequences: {x: {shape: [2, 3], init: normal}}
carry: {h: {shape: [2, 3], init: normal}}
parameters: {W: {shape: [3, 3], init: glorot}, U: {shape: [3, 3], init: glorot}, b: {shape: [3], init: normal}}
objectives: {h: {of: h, reduce: dot, wrt: [W, U, b, h]}, y: {of: y, reduce: dot, wrt: [W, x]}}
""",
    "no-sequence": """
step: step.py:nothing_but_parameters
steps: 4
carry: {h: {shape: [2, 3], init: normal}}
parameters: {U: {shape: [3, 3], init: glorot}}
objectives: {h: {of: h, reduce: dot, wrt: [U, h]}}
""",
    "several-carries": SEVERAL.format(dtype="float64"),
    "several-carries-float32": SEVERAL.format(dtype="float32"),
    "scalars": SCALARS.format(dtype="float64", placement="sequence"),
    "scalars-float32": SCALARS.format(dtype="float32", placement="non_sequence"),
    "scalars-in-step": SCALARS.format(dtype="float64", placement="in_step"),
    "lengths-mask": MASKED.format(dtype="float64"),
    "lengths-mask-float32": MASKED.format(dtype="float32"),
    "integer-sequence-and-carry": EMBEDDED.format(dtype="float64"),
    "integer-sequence-and-carry-float32": EMBEDDED.format(dtype="float32"),
}


def names_of_steps(source: str) -> dict[str, frozenset[str]]:
    """The names of xp that each function of a file calls."""
    return {
        step.name: frozenset(n.attr for n in ast.walk(step) if isinstance(n, ast.Attribute)) & frozenset(XP_NAMES)
        for step in parse(source).body
        if isinstance(step, ast.FunctionDef)
    }


def written(bench: Bench, name: str) -> Case:
    return bench.case(name, CASES[name], step=STEPS, helper=HELPER)


def every_gradient_passes(name: str, bench: Bench, rollout: str) -> None:
    case = written(bench, name)
    result = bench.examined(case, rollout)
    require(result.error is None, f"{result.error} {result.error.context if result.error else ''}")
    found = {(e.check.objective, e.check.parameter): e.check for e in result.checks}
    require(list(found) == [(o.name, p) for o in case.objectives for p in o.wrt], f"it answers for {list(found)} only")
    failing = {pair: check for pair, check in found.items() if check.verdict is not Verdict.PASS}
    if name == "unreached":
        dead = {("nothing", n) for n in ("W", "U", "b")} | {("fixed", "W"), ("fixed", "U")}
        dead |= {("some", n) for n in ("W", "b", "x")}
        said = {pair for pair, check in found.items() if check.dead}
        require(said == dead, f"dead are {sorted(said)}, not {sorted(dead)}")
        failing = {pair: check for pair, check in failing.items() if pair not in dead}
    told = [f"d {o} / d {p}: {c.verdict} {' '.join(c.codes)} {c.reason}".strip() for (o, p), c in failing.items()]
    require(not failing, "\n".join(told))


def values_are_those_of_a_plain_loop(name: str, bench: Bench, rollout: str) -> None:
    """So they are equal on all backends; draws made in the step are taken from the backend."""
    case = written(bench, name)
    result = bench.examined(case, rollout)
    require(result.error is None, f"{result.error} {result.error.context if result.error else ''}")
    assert result.values is not None
    assert result.magnitudes is not None
    draws = {}
    if case.draws_in_step:
        with bench.session(case, rollout) as session:
            draws = session.draws()
    values, sizes = bench.plain_loop(case, draws)
    np.testing.assert_allclose(result.values / sizes, values / sizes, rtol=0, atol=RTOL[case.dtype])
    np.testing.assert_allclose(result.magnitudes, sizes, rtol=RTOL[case.dtype])


NEEDS = names_of_steps(STEPS)
NEEDS[""] = frozenset({"tanh", "sum"})  # equations
NEEDS["with_helper"] |= names_of_steps(HELPER)["activation"]
SCENARIOS = tuple(
    Scenario(f"{name}: {check.__name__.replace('_', ' ')}", partial(check, name), NEEDS[step])
    for name, text in CASES.items()
    for step in [text.partition("step.py:")[2].partition("\n")[0]]
    for check in (every_gradient_passes, values_are_those_of_a_plain_loop)
)

"""Steps written as equations: what they mean, what is refused and where, and what reports point at."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck._backends._worker import equations, expressions
from gradcheck._backends._worker.names import CONSTANTS, DTYPES, XP_NAMES
from gradcheck.case_file import CaseFileError, load
from gradcheck.model import Case

REST = """
steps: 3
sequences: {x: {shape: [2, 3], init: normal}}
carry: {h: {shape: [2, 3], init: {normal: 0.5}}}
parameters: {W: {shape: [3, 3], init: glorot}}
objectives: {hidden: {of: h, reduce: dot, wrt: [W]}}
"""


@pytest.fixture
def written(tmp_path):
    def write(step: str, rest: str = REST) -> Path:
        path = tmp_path / "case.yaml"
        path.write_text(f"name: case\n{step}{rest}")
        return path

    return write


def problems(path: Path) -> list[tuple[int, int, str]]:
    with pytest.raises(CaseFileError) as caught:
        load(path)
    return [(place.line, place.column, place.message) for place in caught.value.places]


def step_of(case: Case):
    rows = [equations.Equation(e.name, e.line, e.text) for e in case.equations]
    carries = [i.name for i in case.inputs if i.role == "carry"]
    return equations.step(rows, [i.name for i in case.inputs], carries, case.outputs, str(case.step_file))


X, H, W = np.full((2, 3), 2.0), np.full((2, 3), 3.0), np.eye(3)


def test_a_carry_is_old_up_to_its_own_equation_and_new_below_it(written):
    case = load(
        written("step: {equations: {before: h + 0.0, h: 10.0 * h + x @ W, after: h}, outputs: [before, after]}")
    )
    result = step_of(case)(np, x=X, h=H, W=W)
    assert {name: value[0, 0] for name, value in result.items()} == {"before": 3, "h": 32, "after": 32}


def test_an_output_is_what_an_objective_or_outputs_names_and_the_rest_stays_inside(written):
    text = "step: {equations: {a: x @ W, b: a * a, h: tanh(b), c: 2 * a}, outputs: [b]}"
    case = load(written(text))
    assert list(step_of(case)(np, x=X, h=H, W=W)) == ["b", "h"]
    more = REST.replace("objectives: {", "objectives: {c: {of: c, wrt: [W]}, ")
    assert list(step_of(load(written(text, more)))(np, x=X, h=H, W=W)) == ["b", "h", "c"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-2 ** 2 * +x", -8.0),
        ("x[:, newaxis, 0] + x[..., -1:] + x[0, 1]", 6.0),
        ("where(x >= 2, pi, inf) * 2 / x", np.pi),
        ("sum(stack([x, h]), axis=(0, -1), keepdims=True)[:, 0:1, 0] + 0 * x[0, :1]", 15.0),
        ("astype(x < h, float64) + zeros((2, 3), dtype=float64)", 1.0),
        ("k ** 2 * x", 0.5),
        ("full_like(x, 1e3)", 1e3),
        ("2 * (x  # the rest is a comment\n      + 1)", 6.0),
    ],
)
def test_what_an_expression_gives(text, value):
    rows = [equations.Equation("k", 1, "(0.5\n)"), equations.Equation("y", 2, equations.laid_out(text, 4))]
    step = equations.step(rows, ["x", "h"], [], ["y"], "case.yaml")
    assert step(np, x=X, h=H)["y"].flat[0] == value


def test_every_style_of_yaml_keeps_lines_and_columns(written):
    text = """step:
  equations:
    a: x @ Q
    b: "x + Q"
    c: 'x +
      Q'
    ä: {really}
    d: |
      tanh(x
           + Q)
    e_: >-
      tanh(x) +

      Q
    f: "\\x78 + Q"
    h: {quoted}
""".replace("{really}", "h * 'ü'").replace("{quoted}", "ä + ä * Q")
    places = [(line, column) for line, column, message in problems(written(text))]
    assert places == [(4, 12), (5, 13), (7, 7), (8, 12), (11, 14), (15, 7), (16, 13), (17, 16)]


HOSTILE = [
    "().__class__.__bases__[0].__subclasses__()",
    "x.__class__",
    "__import__('os').system('true')",
    "eval('1')",
    "open('/etc/passwd')",
    "getattr(x, 'shape')",
    "exec",
    "__builtins__",
    "[i for i in x]",
    "(i for i in x)",
    "{i: i for i in x}",
    "lambda: x",
    "(lambda: x)()",
    "x if x else h",
    "(y := x)",
    "f'{x}'",
    "'a' * 999999999",
    "b'a'",
    "x['a']",
    "x[x]",
    "x[h:]",
    "tanh(*x)",
    "tanh(**x)",
    "tanh(x)(x)",
    "(tanh)(x)(h)",
    "x(h)",
    "tanh",
    "9**9**9",
    "(2**62) * 4",
    "10 ** 400 * x",
    "1.5 ** 1e9",
    "(-1) ** 0.5",
    "1 / 0",
    "1j * x",
    "99999999999999999999999999999",
    "zeros((99999, 99999))",
    "ones(2**40)",
    "tile(x, (9999, 9999))",
    "repeat(x, h)",
    "arange(0, 1, 1e-12)",
    "arange(x)",
    "broadcast_to(x, (10**9, 2, 3))",
    "full(x, 1.0)",
    "add(x, h, x)",
    "sum(x, out=h)",
    "sum(x, axis='0')",
    "...",
    "None",
    "True + x",
    "x is None",
    "x in h",
    "x < h < W",
    "x == h",
    "x and h",
    "not x",
    "~x",
    "x // h",
    "x << 3",
    "x; h",
    "import os",
    "x = h",
    "yield x",
    "await x",
    "x, h",
    "[x, h]",
    "{x}",
    "*x",
    "x)(",
    "",
    "   # nothing",
    "\0",
    "tanh(" * 90 + "x" + ")" * 90,
    "(" * 300 + "x" + ")" * 300,
    "-" * 3000 + "x",
    "x" + "+x" * 1900,
    "x" + "+ 1" * 5000,
    "9" * 4000,
    "xp.tanh(x)",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_or_meaningless_equations_are_refused_before_anything_is_evaluated(text):
    row = equations.Equation("y", 7, equations.laid_out(text, 4))
    trees, [fault] = equations.read([row], ["x", "h", "W"])
    assert trees == {}
    assert fault.line >= 7
    assert fault.column >= 1
    assert "\n" not in fault.message
    with pytest.raises(equations.Fault):
        equations.step([row], ["x", "h", "W"], [], ["y"], "case.yaml")


NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.UnaryOp, ast.USub, ast.BinOp, ast.Add, ast.Sub, ast.Mult,
    ast.Div, ast.Pow, ast.MatMult, ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Subscript, ast.Slice, ast.Tuple, ast.List,
    ast.Call, ast.keyword,
)  # fmt: skip
WORDS = [
    *"xhW()[]{}.,:;+-*/@<>=!~&|^%#'\"\\ \n01239", "lambda ", " for ", " in ", " if ", " else ", "__", "class", "tanh(",
    "x.T", "sum(", "axis=", "where(", ":=", "**", "==", "eval(", "import ", "\u00e4", "zeros((", "None", "e9", "j",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map("".join) | st.text(max_size=40))
def test_whatever_is_written_is_refused_with_its_place_or_holds_allowed_nodes_alone(text):
    row = equations.Equation("y", 7, equations.laid_out(text, 4))
    trees, faults = equations.read([row], ["x", "h", "W"])
    assert len(trees) + len(faults) == 1
    for tree in trees.values():
        for node in ast.walk(tree):
            assert isinstance(node, NODES)
            if isinstance(node, ast.Name):
                assert node.id in {"x", "h", "W"} | set(XP_NAMES)
            if isinstance(node, ast.Constant):
                assert type(node.value) in (int, float, bool, type(None), type(...))
            if isinstance(node, ast.BinOp):  # some array is in it: no arithmetic of Python's numbers is left
                assert not all(isinstance(side, ast.Constant) for side in (node.left, node.right))
        compile(tree, "case.yaml", "eval")


def test_every_function_of_xp_has_a_signature():
    assert set(expressions.SIGNATURES) == set(XP_NAMES) - set(CONSTANTS) - set(DTYPES)


@pytest.mark.parametrize(
    ("step", "place", "words"),
    [
        ("step: {equations: {h: tahn(x)}}", (2, 23), "unknown function 'tahn', did you mean 'tan'?"),
        ("step: {equations: {h: x @ w}}", (2, 27), "unknown name 'w', did you mean 'W'?"),
        ("step: {equations: {a: a + x, h: x}}", (2, 23), "'a' reads itself, but is no carry"),
        ("step: {equations: {a: b, b: x, h: x}}", (2, 23), "'b' is defined further down"),
        ("step: {equations: {x: 2 * x, h: x}}", (2, 20), "'x' is already in 'sequences'"),
        ("step: {equations: {sum: x, h: x}}", (2, 20), "'sum' is a name of xp"),
        ("step: {equations: {in: x, h: x}}", (2, 20), "'in' is not a name"),
        ("step: {equations: {a: x}}", (5, 9), "the carry 'h' has no equation"),
        ("step: {equations: {h: 'tanh(x, h)'}}", (2, 24), "tanh takes 1 argument, not 2"),
        ("step: {equations: {h: [x]}}", (2, 23), "an equation is an expression"),
        ("step: {equations: {h: }}", (2, 20), "the equation is empty: inside {...}"),
        ("step: {equations: {h: x, h: x}}", (2, 26), "repeated key 'h'"),
        ("step: {equations: {h: x}, output: [h]}", (2, 27), "unknown key 'output', did you mean 'outputs'?"),
        ("step: {equations: {h: x}, outputs: [g]}", (2, 37), "no equation 'g', known: h"),
        ("step: {equations: {}}", (2, 19), "must not be empty"),
        ("step: {equation: {h: x}}", (2, 8), "unknown key 'equation', did you mean 'equations'?"),
        ("step: {equations: [x]}", (2, 19), "must be a mapping"),
    ],
)
def test_a_mistake_is_told_once_with_its_place(written, step, place, words):
    [(line, column, message)] = problems(written(step))
    assert (line, column) == place
    assert words in message


def test_what_objectives_name_has_to_be_an_equation(written):
    text = REST.replace("of: h", "of: hh")
    assert problems(written("step: {equations: {h: x}}", text)) == [(7, 27, "no equation 'hh', did you mean 'h'?")]
    collides = REST.replace("{W:", "{e: {shape: [], init: zeros}, W:")
    [(line, _, message)] = problems(written("step: {equations: {h: x}}", collides))
    assert (line, "'e' is a name of xp" in message) == (6, True)


@pytest.mark.backend
def test_reports_point_into_the_case_file_in_every_framework(tmp_path):
    """A stop, and a scan that redraws: the line, the text and the tried change are those of the YAML."""
    (tmp_path / "stop.yaml").write_text(
        "name: stop\nstep:\n  equations:\n    a: x @ W\n    h: |\n      tanh(a\n        + stop_gradient(h))\n"
        + REST
        + "backends: [jax-scan, unroll, theano-scan]\n"
    )
    (tmp_path / "noise.yaml").write_text(
        "name: noise\nstep:\n  equations:\n    z: exp(h @ W) * eps\n    h: tanh(x + z)\n"
        + REST
        + "noise: {eps: {shape: [2, 3], draw: normal, placement: in_step}}\nbackends: [theano-scan]\n"
    )
    program = str(Path(sys.executable).with_name("gradcheck"))
    done = subprocess.run(
        [program, "run", ".", "--diagnose-seconds", "200", "--json", "-"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    noise, stop = json.loads(done.stdout)["cases"]
    [finding] = stop["findings"]
    assert (finding["code"], len(finding["backends"])) == ("GC205", 3)
    blame = finding["blame"]
    assert (blame["file"], blame["line"], blame["text"]) == ("stop.yaml", 7, "+ stop_gradient(h))")
    change = finding["change"]
    assert (change["file"], change["line"]) == ("stop.yaml", 7)
    assert change["diff"].splitlines() == ["-        + stop_gradient(h))", "+        + h)"]
    [finding] = [f for f in noise["findings"] if f["code"] == "GC101"]
    blame = finding["blame"]
    assert (blame["file"], blame["line"], blame["text"]) == ("noise.yaml", 4, "z: exp(h @ W) * eps")

"""The loader: what a case file means, and that every mistake is told with its place, all at once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gradcheck.case_file import CaseFileError, collect, json_schema, load
from gradcheck.diagnosis import is_expected
from gradcheck.model import Case, Check, Expectation, Init, Objective, Place, Placement, Role, Verdict

STEP = """\
def step(xp, x, h, eps, W_x, W_h, b, n=None):
    return {"h": h}
"""
BASE = """\
name: small
step: step.py:step
steps: 3
dims: {batch: 2, hidden: 4}
sequences: {x: {shape: [batch, 3], init: normal}}
carry: {h: {shape: [batch, hidden], init: zeros}}
noise: {eps: {shape: [batch, hidden]}}
parameters:
  W_x: {shape: [3, hidden], init: glorot}
  W_h: {shape: [hidden, hidden], init: {normal: 1e-1}}
  b: {shape: [hidden], init: {value: 0.5}}
constants: {n: {shape: [batch], dtype: int64, init: {integers: [0, 5]}}}
objectives:
  loss: {of: h, wrt: [W_x, W_h, b]}
tolerance: {rtol: 1e-6}
options: {theano: {mode: FAST_RUN}}
expect:
  - {backend: theano-scan, objective: loss, parameters: [b], code: GC101, reason: known}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "step.py").write_text(STEP)
    np.savez(tmp_path / "w.npz", W=np.ones((3, 4)), z=np.ones((3, 4), dtype=complex))
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 nothing")
    return tmp_path


def loaded(text: str | bytes = BASE) -> Case:
    path = Path("case.yaml")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(path)


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(CaseFileError) as caught:
        loaded(text)
    assert str(caught.value) == "\n".join(map(str, caught.value.places))
    return str(caught.value).splitlines()


def edited(*edits: str) -> str:
    text = BASE
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert old in text
        text = text.replace(old, new, 1)
    return text


def test_a_case_is_read_and_resolved(here: Path) -> None:
    case = loaded()
    assert (case.name, case.path, case.step_file, case.step_function) == (
        "small", Path("case.yaml"), here / "step.py", "step",
    )  # fmt: skip
    assert (case.steps, case.seed, case.dtype) == (3, 0, "float64")
    assert [(i.name, i.role, i.shape, i.line) for i in case.inputs] == [
        ("x", Role.SEQUENCE, (2, 3), 5),
        ("h", Role.CARRY, (2, 4), 6),
        ("eps", Role.NOISE, (2, 4), 7),
        ("W_x", Role.PARAMETER, (3, 4), 9),
        ("W_h", Role.PARAMETER, (4, 4), 10),
        ("b", Role.PARAMETER, (4,), 11),
        ("n", Role.CONSTANT, (2,), 12),
    ]
    assert case.input("eps").placement is Placement.SEQUENCE
    assert case.input("eps").init == Init("normal", a=1.0)
    assert case.input("W_h").init == Init("normal", a=0.1)
    assert case.input("n").init == Init("integers", a=0, b=5)
    assert [case.input(name).dtype for name in ("x", "n")] == ["float64", "int64"]
    assert case.objectives == (Objective("loss", "h", "sum", "all", ("W_x", "W_h", "b"), 14),)
    assert (case.backends, case.rtol, case.atol) == (None, 1e-6, 0.0)
    assert case.options == {"theano": {"mode": "FAST_RUN"}}
    assert case.expect == (Expectation(("theano-scan",), ("loss",), ("b",), ("GC101",), "known", 18),)


def test_the_smallest_case() -> None:
    Path("f.py").write_text("f = lambda xp, p: {}")
    case = loaded(
        "{name: a, step: f.py:f, steps: 1, parameters: {p: {shape: [], init: ones}},"
        " objectives: {o: {of: q, wrt: [p]}}}"
    )
    assert (case.input("p").shape, case.rtol, case.expect, case.options) == ((), None, (), {})


def test_paths_elsewhere_are_kept_as_given(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("elsewhere") / "c.yaml"
    path.write_text(BASE)
    path.with_name("step.py").write_text(STEP)
    assert load(path).path == path
    assert load(path).step_file == path.with_name("step.py")
    (here / "c.yaml").write_text(BASE)
    assert load(here / "c.yaml").path == Path("c.yaml")


@pytest.mark.parametrize(
    ("written", "init"),
    [
        ("ones", Init("ones")),
        ("normal", Init("normal", a=1.0)),
        ("uniform", Init("uniform", a=0.0, b=1.0)),
        ("{normal: 2}", Init("normal", a=2.0)),
        ("{uniform: [-1, 1.0e-3]}", Init("uniform", a=-1.0, b=1e-3)),
        ("{integers: [0x10, 0o21]}", Init("integers", a=16, b=17)),
        ("{value: 1e3}", Init("value", value=1000.0)),
        ("{value: [1, 2, 3, .inf]}", Init("value", value=[1, 2, 3, float("inf")])),
    ],
)
def test_inits(written: str, init: Init) -> None:
    assert loaded(edited("{value: 0.5}", written)).input("b").init == init


def test_init_from_a_file(here: Path) -> None:
    case = loaded(edited("init: glorot", "init: {file: w.npz, key: W}"))
    assert case.input("W_x").init == Init("file", file=here / "w.npz", key="W")


@pytest.mark.parametrize(
    ("wrt", "names"),
    [
        ("['W_*']", ("W_x", "W_h")),
        ("[W_h, '*']", ("W_h", "W_x", "b")),
        ("[x, h, eps, b]", ("x", "h", "eps", "b")),
        ("['W_[x]']", ("W_x",)),
    ],
)
def test_wrt(wrt: str, names: tuple[str, ...]) -> None:
    assert loaded(edited("wrt: [W_x, W_h, b]", f"wrt: {wrt}")).objectives[0].wrt == names


def test_bounds() -> None:
    assert loaded().input("b").bounds is None
    for written, bounds in (("[0, 1]", (0.0, 1.0)), ("[null, 1e1]", (-np.inf, 10.0)), ("[-2.5, null]", (-2.5, np.inf))):
        assert loaded(BASE.replace("0.5}", f"0.5}}, bounds: {written}")).input("b").bounds == bounds


def test_values_and_lists_in_expect() -> None:
    entry = "- {backend: [a, b], parameter: W_x, code: [GC2xx, GC101], reason: 'why\n    not'}"
    case = loaded(
        edited("- {backend: theano-scan, objective: loss, parameters: [b], code: GC101, reason: known}", entry)
    )
    assert case.expect == (Expectation(("a", "b"), (), ("W_x",), ("GC2xx", "GC101"), "why not", 18),)


@pytest.mark.parametrize("order", [None, 1, 2])
def test_an_expectation_is_of_both_orders_unless_it_says_which(order: int | None) -> None:
    case = loaded(edited("code: GC101,", "code: GC101," + (f" order: {order}," if order else "")))
    check = Check("theano-scan", "loss", "b", Verdict.NULL, ("GC101",))
    expected = [is_expected(case, replace(check, order=n)) for n in (1, 2)]
    assert expected == [order in (None, 1), order in (None, 2)]


@pytest.mark.parametrize(
    "edits",
    [
        ("seed: 0", "seed: 7"),
        ("dtype: int64", "dtype: bool", "{integers: [0, 5]}", "{value: [true, false]}"),
        ("dtype: int64", "dtype: float"),
        ("init: glorot", "dtype: int64, init: {integers: [0, 9]}"),
        ("init: normal", "init: {value: 2}"),
        ("[batch, 3], init: normal", "[2], init: {value: [[1, 2], [3, 4], [5, 6]]}"),
        ("{value: 0.5}", "{value: 0.5}, bounds: [0.5, null]"),
        ("{value: 0.5}", "{value: 0.1}, dtype: float32, bounds: [0, 0.1]"),  # both round to the same float32
        ("init: zeros", "init: zeros, bounds: [0, 1.0e+300]"),
        ("of: h", "of: h, at: 2"),
        ("of: h", "of: h, at: last, reduce: dot"),
        ("steps: 3", "backends: [unroll]\nsteps: 3"),
        (
            "b: {shape",
            "bias: &b {shape",
            "- {backend",
            "- {backend",
            "[W_x, W_h, b]",
            "[W_x]",
            "[b]",
            "[W_x]",
            "step.py",
            "any.py",
        ),
    ],
)
def test_also_accepted(edits: tuple[str, ...]) -> None:
    Path("any.py").write_text("def step(xp, *, h, **rest): ...")
    text = BASE.replace("steps: 3", "steps: 3\nseed: 0") if edits[0] == "seed: 0" else BASE
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        text = text.replace(old, new, 1)
    assert isinstance(loaded(text), Case)


BROKEN = {
    "unknown key": (("parameters:\n", "paramters:\n"), ["8:1: unknown key 'paramters', did you mean 'parameters'?"]),
    "misspelt required key": (("steps:", "stepz:"), ["3:1: unknown key 'stepz', did you mean 'steps'?"]),
    "unknown key inside": (("init: zeros", "int: zeros"), ["6:37: unknown key 'int', did you mean 'init'?"]),
    "key like none": (("tolerance: {rtol", "tolerance: {qq"), ["15:13: unknown key 'qq', known: rtol, atol"]),
    "missing key": (("steps: 3\n", ""), ["1:1: missing key 'steps'"]),
    "missing key inside": ((", init: zeros", ""), ["6:9: missing key 'init'"]),
    "repeated key": (("steps: 3", "steps: 3\nsteps: 4"), ["4:1: repeated key 'steps', first on line 3"]),
    "repeated input": (
        ("  b: {", "  W_x: {"),
        [
            "2:7: step 'step' (step.py:1) requires 'b', which is no input of the case, known: x, h, eps, W_x, W_h, n",
            "11:3: repeated key 'W_x', first on line 9",
            "14:33: unknown input 'b', known: x, h, eps, W_x, W_h",
            "18:58: unknown parameter 'b', known: x, h, eps, W_x, W_h",
        ],
    ),
    "key that is a number": (
        ("{batch: 2", "{1: 2, batch: 2"),
        ["4:8: key 1 is not text: put it in quotes or give it a name"],
    ),
    "steps in words": (("steps: 3", "steps: '3'"), ["3:8: 'steps' must be a whole number, not '3'"]),
    "steps as truth value": (("steps: 3", "steps: true"), ["3:8: 'steps' must be a whole number, not True"]),
    "no steps": (("steps: 3", "steps: 0"), ["3:8: 'steps' must be at least 1, not 0"]),
    "empty value": (("steps: 3", "steps:"), ["3:1: 'steps' must be a whole number, not empty"]),
    "negative seed": (("steps: 3", "steps: 3\nseed: -1"), ["4:7: 'seed' must be at least 0, not -1"]),
    "dtype": (("steps: 3", "steps: 3\ndtype: flaot64"), ["4:8: unknown 'dtype' 'flaot64', did you mean 'float64'?"]),
    "dtype of an input": (("int64", "int46"), ["12:40: unknown 'dtype' 'int46', did you mean 'int64'?"]),
    "section as list": (
        ("{x: {shape: [batch, 3], init: normal}}", "[x]"),
        [
            "2:7: step 'step' (step.py:1) requires 'x', which is no input of the case, known: h, eps, W_x, W_h, b, n",
            "5:12: 'sequences' must be a mapping, not a list",
        ],
    ),
    "name of two lines": (("name: small", 'name: "a\\nb"'), ["1:7: 'name' must be one line of visible text"]),
    "tag": (
        ("steps: 3", "steps: !!python/tuple 3"),
        [
            "3:8: 'steps' must be a whole number, not empty",
            "3:8: tag 'tag:yaml.org,2002:python/tuple' is not supported: write the plain value",
        ],
    ),
    "unknown dimension": (
        ("[batch, hidden], init: zeros", "[batch, hiden], init: zeros"),
        ["6:28: unknown dimension 'hiden', did you mean 'hidden'?"],
    ),
    "dimension of zero": (("hidden: 4", "hidden: 0"), ["4:26: 'hidden' must be at least 1, not 0"]),
    "zero in a shape": (("[3, hidden]", "[0, hidden]"), ["9:17: a dimension is at least 1, not 0"]),
    "real number in a shape": (
        ("[3, hidden]", "[3.0, hidden]"),
        ["9:17: a dimension is a name from `dims` or a whole number, not 3.0"],
    ),
    "same name twice": (
        ("constants: {n:", "constants: {x:"),
        ["12:13: input 'x' is already in 'sequences': inputs reach the step by name"],
    ),
    "name is xp": (
        ("constants: {n:", "constants: {xp:"),
        ["12:13: 'xp' is what every step gets first: name this differently"],
    ),
    "not an identifier": (
        ("constants: {n:", "constants: {n-1:"),
        ["12:13: 'n-1' is not a Python name: inputs reach the step by name"],
    ),
    "keyword": (
        ("constants: {n:", "constants: {lambda:"),
        [
            "2:7: step 'step' (step.py:1) does not take the input 'lambda': add 'lambda' or `**inputs`",
            "12:13: 'lambda' is not a Python name: inputs reach the step by name",
        ],
    ),
    "unknown wrt": (("[W_x, W_h, b]", "[W_x, W_hh, b]"), ["14:28: unknown input 'W_hh', did you mean 'W_h'?"]),
    "wrt twice": (("[W_x, W_h, b]", "[W_x, W_x]"), ["14:28: 'W_x' is listed twice"]),
    "wrt empty": (("[W_x, W_h, b]", "[]"), ["14:22: 'wrt' must not be empty"]),
    "wrt a constant": (("[W_x, W_h, b]", "[n]"), ["14:23: 'n' is a constant: it is not differentiated"]),
    "wrt matches nothing": (("[W_x, W_h, b]", "['U_*']"), ["14:23: no parameter matches 'U_*'"]),
    "wrt drawn in the step": (
        ("[batch, hidden]}}", "[batch, hidden], placement: in_step}}", "[W_x, W_h, b]", "[eps]"),
        ["14:23: 'eps' is drawn in the step: only noise passed in can be differentiated"],
    ),
    "of": (("of: h", "of: h h"), ["14:14: 'h h' is not the name of a carry or an output"]),
    "reduce": (("of: h", "of: h, reduce: summ"), ["14:25: unknown 'reduce' 'summ', did you mean 'sum'?"]),
    "at too late": (("of: h", "of: h, at: 3"), ["14:21: step 3 does not exist: the last of 3 is 2, or write `last`"]),
    "at negative": (
        ("of: h", "of: h, at: -1"),
        ["14:21: `at` counts steps from 0, -1 is negative: write `last` for the last step"],
    ),
    "at a word": (("of: h", "of: h, at: lats"), ["14:21: unknown `at` 'lats', did you mean 'last'? or a step number"]),
    "placement": (
        ("[batch, hidden]}}", "[batch, hidden], placement: instep}}"),
        ["7:50: unknown 'placement' 'instep', did you mean 'in_step'?"],
    ),
    "framework": (("{theano:", "{theano-scan:"), ["16:11: unknown framework 'theano-scan', did you mean 'theano'?"]),
    "backend twice": (("steps: 3", "steps: 3\nbackends: [a, a]"), ["4:15: 'a' is listed twice"]),
    "no backends": (("steps: 3", "steps: 3\nbackends: []"), ["4:11: 'backends' must not be empty"]),
    "negative tolerance": (("rtol: 1e-6", "rtol: -1e-6"), ["15:19: 'rtol' must be at least 0, not -1e-06"]),
    "infinite tolerance": (("rtol: 1e-6", "atol: .inf"), ["15:19: 'atol' must be finite, not inf"]),
    "tolerance not a number": (("rtol: 1e-6", "atol: .nan"), ["15:19: 'atol' must be finite, not nan"]),
    "code": (("GC101", "GC10"), ["18:62: 'GC10' is not a code: write one such as GC101, or a family such as GC1xx"]),
    "no reason": (("reason: known", "reason: ' '"), ["18:83: 'reason' must say why this is accepted"]),
    "reason missing": ((", reason: known", ""), ["18:5: missing key 'reason'"]),
    "expected parameter": (
        ("parameters: [b]", "parameters: [W_y]"),
        ["18:58: unknown parameter 'W_y', did you mean 'W_x'?"],
    ),
    "expected objective": (
        ("objective: loss", "objective: los"),
        ["18:28: unknown objective 'los', did you mean 'loss'?"],
    ),
    "expect field": (
        ("objective: loss", "objectives: loss"),
        ["18:28: unknown key 'objectives', did you mean 'objective'?"],
    ),
    "parameter twice": (
        ("parameters: [b]", "parameters: [b], parameter: b"),
        ["18:62: 'parameter' and 'parameters' are the same: give one"],
    ),
    "init word": (("init: glorot", "init: glorrot"), ["9:35: unknown init 'glorrot', did you mean 'glorot'?"]),
    "init key": (("{value: 0.5}", "{vlaue: 0.5}"), ["11:30: unknown init 'vlaue', did you mean 'value'?"]),
    "init a number": (("{value: 0.5}", "0.5"), ["11:30: a literal is written {value: ...}"]),
    "init of two": (
        ("{value: 0.5}", "{value: 1, normal: 1}"),
        ["11:30: 'init' takes one of normal, uniform, integers, value, file, this has 2 keys"],
    ),
    "uniform of one": (
        ("{value: 0.5}", "{uniform: 1}"),
        ["11:30: 'uniform' takes two numbers: {uniform: [-1.0, 1.0]}"],
    ),
    "values outside their bounds": (
        ("{value: 0.5}", "{value: [0.5, 0, -1, 2]}, bounds: [0, 1]"),
        ["11:64: b[2] is -1, outside its bounds [0, 1]"],
    ),
    "random values outside their bounds": (
        ("b: {shape: [hidden], init: {value: 0.5}}", "b: {shape: [hidden], init: normal, bounds: [null, -9]}"),
        ["11:46: b[0] is -0.978694, outside its bounds [null, -9]"],
    ),
    "bounds upside down": (
        ("{value: 0.5}", "{value: 0.5}, bounds: [1, 0]"),
        ["11:52: 'bounds' takes [low, high] with low < high, not [1, 0]"],
    ),
    "bounds of one": (
        ("{value: 0.5}", "{value: 0.5}, bounds: [0]"),
        ["11:52: 'bounds' takes two numbers or null: [0.0, null]"],
    ),
    "bounds that meet in float32": (
        ("{value: 0.5}", "{value: 0.5}, dtype: float32, bounds: [0.5, 0.5000000001]"),
        ["11:68: 'bounds' leaves no room in float32: both are 0.5"],
    ),
    "bounds of whole numbers": (
        ("{value: 0.5}", "{value: 1}, dtype: int64, bounds: [0, 5]"),
        ["11:64: 'bounds' are for inputs that can be moved, 'b' is int64"],
    ),
    "bounds of a constant": (
        ("init: {integers: [0, 5]}}", "init: {integers: [0, 5]}, bounds: [0, 5]}"),
        ["12:73: unknown key 'bounds'"],
    ),
    "uniform upside down": (
        ("{value: 0.5}", "{uniform: [1, 0]}"),
        ["11:30: 'uniform' takes [low, high) with low < high, not [1, 0]"],
    ),
    "real integers": (("[0, 5]", "[0, 1.5]"), ["12:53: 'integers' takes whole numbers"]),
    "scale": (
        ("{normal: 1e-1}", "{normal: -1}"),
        ["10:40: 'normal' takes a scale, a number that is not negative: {normal: 0.1}"],
    ),
    "ragged value": (("{value: 0.5}", "{value: [[1, 2], [3]]}"), ["11:30: 'value' has rows of different lengths"]),
    "value of words": (("{value: 0.5}", "{value: [1, a]}"), ["11:30: 'value' holds numbers, not 'a'"]),
    "value of another shape": (
        ("{value: 0.5}", "{value: [1, 2]}"),
        ["11:30: 'value' has shape [2], 'b' needs shape [4]"],
    ),
    "value without time": (
        ("[batch, 3], init: normal", "[1], init: {value: [1]}"),
        ["5:35: 'value' has shape [1], 'x' needs shape [3, 1] (steps first)"],
    ),
    "value real for integers": (
        ("{integers: [0, 5]}", "{value: 0.5}"),
        ["12:53: 'value' holds 0.5, which is no int64"],
    ),
    "value true for reals": (
        ("{value: 0.5}", "{value: true}"),
        ["11:30: 'value' holds true, but float64 takes numbers"],
    ),
    "normal for integers": (
        ("{integers: [0, 5]}", "normal"),
        ["12:53: 'normal' gives real numbers, 'n' is int64: use {integers: [low, high]}"],
    ),
    "integers out of range": (
        ("dtype: int64, init: {integers: [0, 5]}", "dtype: bool, init: {integers: [0, 3]}"),
        ["12:52: {integers: [0, 3]} does not fit into bool"],
    ),
    "too large": (
        ("hidden: 4", "hidden: 100000000"),
        ["10:16: input 'W_h' would have 10000000000000000 entries: too large"],
    ),
    "npz missing": (("init: glorot", "init: {file: v.npz, key: W}"), ["9:35: no file 'v.npz'"]),
    "npz key missing": (
        ("init: glorot", "init: {file: w.npz, key: w}"),
        ["9:35: no array 'w' in 'w.npz', known: W, z"],
    ),
    "npz shape": (
        ("[3, hidden], init: glorot", "[hidden, 3], init: {file: w.npz, key: W}"),
        ["9:35: 'W' in 'w.npz' has shape [3, 4], 'W_x' needs shape [4, 3]"],
    ),
    "npz dtype": (
        ("init: glorot", "init: {file: w.npz, key: z}"),
        ["9:35: 'z' in 'w.npz' is complex128, 'W_x' is float64"],
    ),
    "npz without key": (
        ("init: glorot", "init: {file: w.npz}"),
        ["9:35: an array from a file is written {file: weights.npz, key: name}"],
    ),
    "npy": (
        ("init: glorot", "init: {file: one.npy, key: W}"),
        ["9:35: 'one.npy' holds one array: save it with numpy.savez and name its key"],
    ),
    "npz damaged": (
        ("init: glorot", "init: {file: damaged.npz, key: W}"),
        ["9:35: 'damaged.npz' cannot be read as npz: File is not a zip file"],
    ),
    "step file missing": (
        ("step.py:step", "stepp.py:step"),
        ["2:7: no step file 'stepp.py' in ., did you mean 'step.py'?"],
    ),
    "step function missing": (
        ("step.py:step", "step.py:stepp"),
        ["2:7: no function 'stepp' in step.py, did you mean 'step'?"],
    ),
    "step without function": (("step.py:step", "step.py"), ["2:7: 'step' is written FILE.py:FUNCTION, not 'step.py'"]),
    "step file is a folder": (("step.py:step", "folder.py:step"), ["2:7: step file 'folder.py' is a folder"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name: str) -> None:
    edits, expected = BROKEN[name]
    Path("folder.py").mkdir()
    assert sorted(problems(edited(*edits))) == sorted(f"case.yaml:{line}" for line in expected)


NOT_A_CASE = {
    "empty": (b"", "1:1: the file is empty: `gradcheck init NAME` writes a case to start from"),
    "comments only": (b"# nothing\n", "1:1: the file is empty: `gradcheck init NAME` writes a case to start from"),
    "list": (b"- a\n", "1:1: a case file is a mapping (`name: ...`, `step: ...`), this is something else"),
    "not UTF-8": (b"name: a\nstep: \xff\n", "2:7: not UTF-8 text: save the file as UTF-8"),
    "not YAML": (b"name: [a\nstep: b", "2:5: not YAML: "),
    "control character": (b"name: a\nstep: \x01", "2:7: not YAML: character '\\x01' is not allowed"),
    "deep": (b"[" * 5000, "1:1: is nested too deeply or too large for a case file: put large values into an npz file"),
    "deep mapping": (
        b"options: {a: " + b"[" * 60 + b"]" * 60 + b"}",
        "1:53: is nested too deeply or too large for a case file: put large values into an npz file",
    ),
}


@pytest.mark.parametrize("name", NOT_A_CASE)
def test_what_is_no_case_at_all(name: str) -> None:
    text, expected = NOT_A_CASE[name]
    (found,) = problems(text)
    # what the parser has to say differs between its versions
    assert found.startswith(f"case.yaml:{expected}") if name == "not YAML" else found == f"case.yaml:{expected}"


def test_aliases_that_explode() -> None:
    layers = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    (found,) = problems("a0: &a0 [1]\n" + layers)
    assert found.endswith("put large values into an npz file")
    (found,) = problems("a: &a [*a]\n")
    assert "nested too deeply" in found or "not YAML" in found


def test_missing_files_and_folders(here: Path) -> None:
    with pytest.raises(CaseFileError, match=r"^nope.yaml:1:1: no such file$"):
        load(Path("nope.yaml"))
    with pytest.raises(CaseFileError, match="is a folder, not a case file"):
        load(here)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def step(xp, x, h, W_x, W_h, b, n): ...", ["does not take the input 'eps': add 'eps' or `**inputs`"]),
        (
            "def step(xp, x, h, epsi, W_x, W_h, b, n): ...",
            [
                "does not take the input 'eps', did you mean 'epsi'?",
                "requires 'epsi', which is no input of the case, did you mean 'eps'?",
            ],
        ),
        ("def step(xp, x, /, **p): ...", ["takes 'x' by position only, but inputs are passed by name: remove the `/`"]),
        ("def step(x, **p): ...", ["does not take 'xp' as its first parameter"]),
        ("def step(xp, x, /, h, eps, W_x, W_h, b, n): ...", ["takes 'x' by position only"]),
        ("def step(xp, *, far, **p): ...", ["requires 'far', which is no input of the case, known: x, h, eps"]),
        ("step = lambda xp: {}", None),
        ("if True:\n    def step(xp, **p): ...", []),
        ("from other import *", []),
        ("from other import step", []),
        ("import other\nstep = other.made(3)", []),
        ("@decorated\ndef step(a): ...", []),
        ("def step(*everything, **p): ...", []),
        ("class other:\n    def step(xp, **p): ...", ["no function 'step' in step.py"]),
    ],
)  # fmt: skip
def test_step_signature(source: str, expected: list[str] | None) -> None:
    Path("step.py").write_text(source)
    if expected == []:
        assert loaded().step_function == "step"
        return
    found = problems(BASE)
    if expected is None:
        assert len(found) == 7
        return
    assert [line.startswith("case.yaml:2:7: ") for line in found] == [True] * len(expected)
    for line, part in zip(found, expected, strict=True):
        assert part in line


def test_step_file_with_a_syntax_error() -> None:
    Path("step.py").write_text("x = 1\ndef step(:\n")
    (found,) = problems(BASE)
    assert found.startswith("step.py:2:10: syntax error: ")
    Path("step.py").write_bytes(b"x = '\0'\n")
    assert len(problems(BASE)) == 1


def test_all_problems_at_once() -> None:
    text = edited(
        "steps: 3", "steps: x", "hidden], init: zeros", "hiden], init: zeros", "[W_x, W_h, b]", "[W_y]", "GC101", "G1"
    )
    assert [line.partition(": ")[0] for line in problems(text)] == [
        f"case.yaml:{place}" for place in ("3:8", "6:28", "14:23", "18:62")
    ]


def test_nothing_is_run_or_imported() -> None:
    Path("step.py").write_text(STEP + "raise SystemExit('was run')\n")
    Path("case.yaml").write_text(BASE)
    code = "import sys; from pathlib import Path; from gradcheck.case_file import load; load(Path('case.yaml')); " \
        "sys.exit(' '.join({'numpy', 'step'} & set(sys.modules)) or None)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_collect(here: Path) -> None:
    for name in ("b.yaml", "sub/a.yml", ".hidden/c.yaml", "sub/.git/d.yaml", "notes.txt", ".e.yaml"):
        (here / name).parent.mkdir(exist_ok=True, parents=True)
        (here / name).write_text("")
    assert collect([Path()]) == [Path("b.yaml"), Path("sub/a.yml")]
    assert collect([Path("notes.txt"), Path("sub"), Path("sub/a.yml"), Path("b.yaml")]) == [
        Path("notes.txt"), Path("sub/a.yml"), Path("b.yaml"),
    ]  # fmt: skip
    assert collect([Path(".hidden")]) == [Path(".hidden/c.yaml")]
    assert collect([]) == []
    with pytest.raises(CaseFileError) as caught:
        collect([Path("nope"), Path("b.yaml"), Path("nor.yaml")])
    assert str(caught.value) == "nope: no such file or folder\nnor.yaml: no such file or folder"


def test_json_schema_accepts_what_the_loader_accepts() -> None:
    schema = json_schema()
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    data = YAML(typ="safe", pure=True).load(BASE)
    validator.validate(data)
    for wrong in (
        {"steps": 0},
        {"stepz": 1},
        {"dims": {"a": 0}},
        {"objectives": {}},
        {"expect": [{"reason": "r", "code": "X"}]},
    ):
        assert not validator.is_valid(data | wrong)
    for form in schema["$defs"]["CaseFile"], schema["$defs"]["NativeFile"]:
        assert all("description" in part for part in form["properties"].values())


# ---- whatever is in the file, the answer is a Case or a located error

FRAGMENTS = [
    "{", "}", "[", "]", ":", ": ", "- ", "\n", "\n  ", "'", '"', "&a ", "*a", "!!float ", "!x ", "|", ">", "#", "? ",
    "<<: ",
    "1e-6", "-1", ".nan", "~", "true", "0x", "1_", "-_", "0o9", "99999999999999999999", "null", "2020-01-01", "=", "\\",
    "\ud800", "\x00", "é", "\u2028", "\t", '"\\ud800"', "---", "...", "%YAML 1.1\n---\n",
    "W_*", "xp", "lambda", "GC1xx", "step.py:step", "../..:x", "/:x",
]  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(FRAGMENTS),
    st.just(10**400),
)
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def is_case_or_located(text: bytes) -> None:
    places: tuple[Place, ...] | None = None
    try:
        loaded(text)
    except CaseFileError as error:
        places = error.places
    assert places is None or places
    for place in places or ():
        assert place.path
        assert place.message
        assert min(place.line, place.column) >= 1
        str(place).encode()


def nodes(tree: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [way, *(found for key, child in below for found in nodes(child, (*way, key)))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, len(BASE)), st.integers(0, 12), st.sampled_from(FRAGMENTS) | st.text(max_size=3)),
        max_size=4,
    )
)
def test_any_text(mutations: list[tuple[int, int, str]]) -> None:
    text = BASE
    for position, cut, inserted in mutations:
        text = text[:position] + inserted + text[position + cut :]
    is_case_or_located(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_structure(data: st.DataObject) -> None:
    import json  # JSON is YAML: a writer that is quick and takes any tree

    tree = YAML(typ="safe", pure=True).load(BASE)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(nodes(tree)[1:]))
        parent = tree
        for key in way:
            parent = parent[key]
        parent[last] = data.draw(TREES)
    is_case_or_located(json.dumps(tree).encode())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes(raw: bytes) -> None:
    is_case_or_located(raw)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(STEP)), st.integers(0, 6), st.text(max_size=3)), max_size=3))
def test_any_step_file(mutations: list[tuple[int, int, str]]) -> None:
    text = STEP
    for position, cut, inserted in mutations:
        text = text[:position] + inserted + text[position + cut :]
    Path("step.py").write_bytes(text.encode("utf-8", "surrogatepass"))
    is_case_or_located(BASE.encode())
    Path("step.py").write_text(STEP)

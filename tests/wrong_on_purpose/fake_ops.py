"""The ops of a fake backend: what `nodes`, `focus`, `births` and `composed` answer, right or wrong on purpose.

Runs inside a backend's interpreter: Python >= 3.9, numpy. `ops=wrong` among a fault's words gives the backend these operations,
`ops=wrong-elsewhere` with lines that are not on disk. The rollout is said to have two ops, the tanh of rnn.py's step and a
function `gain` with a rule of its own.
"""

import os
import time
import types

import numpy as np

TANH, GAIN, WHERE = range(3)
BRANCHES = ("tanh", "exp", "sqrt")


def attach(model, mode):
    """Give a model the operations."""
    ops = Ops(model, mode)
    for name in ("nodes", "focus", "births", "composed", "parts"):
        setattr(model, name, getattr(ops, name))
    if mode == "bare":
        del model.composed


class Ops:
    def __init__(self, model, mode):
        self.mode, _, self.place = mode.partition("-")
        self.model, self.steps = model, model.problem.steps

    def nodes(self):
        file = "/nowhere/gone.py" if self.place == "elsewhere" else self.model.problem.step_file
        rows = [("tanh", 6, "op"), ("custom_vjp gain", 7, "custom"), ("where", 7, "op")]
        listed = [
            {
                "op": op,
                "file": file,
                "line": line,
                "column": 9,
                "text": "",
                "steps": self.steps,
                "kind": kind,
                "why": "",
            }
            for op, line, kind in rows
        ]
        listed[GAIN]["defined"] = f"{file}:5"
        listed[WHERE]["active"] = False
        if self.mode == "opaque":
            listed[GAIN].update(kind="opaque", why="a callback into Python")
        return listed

    def focus(self, node, step):
        if node == GAIN and self.mode == "raises":
            raise ValueError("no such op")
        if node == GAIN and self.mode == "dies":
            os._exit(5)
        if self.mode == "slow":
            time.sleep(0.6)
        return Op(node, self.mode, step)

    def births(self):
        born = {"node": TANH, "step": 2, "where": "backward"}
        if self.mode != "bare":
            born.update(zero_cotangent=True, input=0.0, cotangent=0.0, result=float("nan"))
            born["select"] = WHERE if self.mode == "branch" else None
        return [born]

    def parts(self, inside=()):
        """The functions that "branch" may freeze, each with its line."""
        file = self.model.problem.step_file
        made = [{"op": op, "file": file, "line": k + 5, "column": 0} for k, op in enumerate(BRANCHES)]
        return [dict(m, op="add", line=9, input=k, inner=bool(inside), made=m) for k, m in enumerate(made)]

    def composed(self, open_stops=False, inside=(), mend=False, lost=(), objectives=None):
        """The right gradients, unless it is the rule of `gain` that is wrong and it is not replaced."""
        fault = self.model.fault
        if lost:
            before = self.model.fault, self.model.arguments
            self.model.fault, self.model.arguments = "branch", [BRANCHES[lost[0]]]
            try:
                found = self.model.gradients(self.model.problem.arrays)
            finally:
                self.model.fault, self.model.arguments = before
            return {o: g for o, g in found.items() if objectives is None or o in objectives}
        right = {
            "wrong": GAIN in inside,
            "late": GAIN in inside,
            "never": False,
            "branch": mend,
            "flat": GAIN in inside,
        }.get(self.mode, True)
        self.model.fault = "" if right else fault
        try:
            return self.model.gradients(self.model.problem.arrays)
        finally:
            self.model.fault = fault


class Op:
    """tanh(x) or 3 x (flat: a staircase), with the reverse rule that the mode says."""

    def __init__(self, node, mode, step):
        x = np.linspace(0.2, 0.9, 4) + 0.01 * (step or 0)
        objectives = [{"name": "output 0", "wrt": ["input 0"]}]
        self.problem = types.SimpleNamespace(arrays={"input 0": x}, objectives=objectives, dtype="float64")
        self.finite_in = self.finite_out = True
        self.node, self.mode = node, mode
        self.wrong = mode == "wrong" or (mode == "late" and step == 3)

    def values(self, arrays):
        x = arrays["input 0"]
        y = np.tanh(x) if self.node == TANH else np.round(3 * x) if self.mode == "flat" else 3 * x
        return [[float(y.sum())], [float(np.abs(y).sum())]]

    def gradients(self, arrays, cotangent=1.0):
        x = arrays["input 0"]
        slope = 1 - np.tanh(x) ** 2 if self.node == TANH else np.full_like(x, -3.0 if self.wrong else 3.0)
        if self.node == GAIN and self.mode == "nonlinear":
            return {"output 0": {"input 0": ("ok", slope * cotangent + 0.5)}}
        return {"output 0": {"input 0": ("ok", slope * cotangent)}}

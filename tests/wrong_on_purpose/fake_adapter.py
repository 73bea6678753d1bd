"""The adapter of the backends that are wrong on purpose: plain numpy, gradients by complex step, and one fault per case.

Runs inside a backend's interpreter: Python >= 3.9, numpy >= 1.22, nothing else. The fixtures copy it into the folder of
each fake backend. The case says what goes wrong: `options: {fake: {fault: zero}}`; `zero@scan` for that rollout alone;
`entry W_h 3 1e-6`, `entries W_h 3=1e-6,5=1e-3` and `row W_h 3 1.01` with arguments; `complex` offers complex step, `ops=wrong`
the ops of fake_ops.py. What a gradient may equal instead of the right one: `times 0.25 W_h,b` (or `times 0.25` of all),
`order transposed -1 W_h`, `summed 0 mean W_h`, `rounded float16`, `cut every 3` (or `all 0`, `once 4`, `window 2`) of the carry,
`slice 1 0` and `without 1 0` (axis and index of the objective's terms), `branch exp` (that function hands nothing back).
Without a fault it is a healthy backend.
"""

import os
import signal
import sys
import time
import types

import numpy as np

TINY = 1e-30
ORDERS = {
    "transposed": np.transpose,
    "reversed0": lambda g: np.flip(g, 0),
    "reversed1": lambda g: np.flip(g, 1),
    "shifted0": lambda g: np.roll(g, 1, 0),
    "shifted1": lambda g: np.roll(g, -1, 1),
    "columns": lambda g: g.reshape(-1, order="F").reshape(g.shape),
}
DROPPED = 2  # the step whose contribution "bad_step" leaves out
XP = types.SimpleNamespace(
    tanh=np.tanh,
    exp=np.exp,
    sqrt=np.sqrt,
    sum=np.sum,
    mean=np.mean,
    abs=np.abs,
    stack=np.stack,
    where=np.where,
    log=np.log,
)


def start(settings):
    return {"framework_version": np.__version__}


def prepare(problem):
    fault, _, rollout = problem.options.get("fault", "").partition("@")
    return Model(problem, fault if rollout in ("", problem.rollout) else "")


class Model:
    """One case with one fault."""

    def __init__(self, problem, fault):
        self.problem = problem
        self.fault, *self.arguments = fault.split() or [""]
        self.calls = 0
        if "complex" in fault.split():  # healthy by itself, and offers complex step as the reference
            self.derivatives = lambda arrays, tangents: self.tangent(arrays, tangents)
        if "forward" in fault.split():  # offers forward mode, and is wrong in reverse by what else the fault says
            self.tangents = lambda arrays, tangents: self.tangent(arrays, tangents)
        elif "forward_dies" in fault.split():
            self.tangents = lambda arrays, tangents: os._exit(7)
        self.rollout(problem.arrays)
        for word in self.arguments:
            if word.startswith("ops="):
                from . import fake_ops

                fake_ops.attach(self, word[len("ops=") :])
        misbehave(self.fault, "prepare")

    def rollout(self, arrays, moved=None, steps=None, cuts=(), part=None, frozen=""):
        """[(objective, magnitude)]. moved: what replaces `arrays` in the given steps, or in all of them.

        cuts: steps that the carry enters without its tangent. part: of the objectives' terms. frozen: a function of XP that takes
        no tangents.
        """
        task, xp = self.problem, XP
        if frozen:
            xp = types.SimpleNamespace(**{**vars(XP), frozen: lambda x: getattr(np, frozen)(np.real(x))})
        carries = {n: (moved or arrays)[n] for n in task.carries}
        history = {}
        for t in range(task.steps):
            here = moved if moved is not None and (steps is None or t in steps) else arrays
            fixed = {n: here[n] for n in task.shared + task.parameters + task.constants}
            now = {n: here[n][t] for n in task.sequences}
            if t in cuts:
                carries = {n: np.real(c) for n, c in carries.items()}
            carries, outputs = task.step(xp, dict(fixed, **now, **carries))
            for name, value in {**carries, **outputs}.items():
                history.setdefault(name, []).append(value)
        chosen = [dict(o, part=part, whole=o["name"]) if part else o for o in task.objectives]
        return [task.reduce(XP, o, np.stack(history[o["of"]]), np.shape(history[o["of"]][0])) for o in chosen]

    def tangent(self, arrays, tangents, steps=None, **more):
        """The derivative of every objective along the tangents, taken in the given steps. more: see rollout."""
        moved = {n: a + 1j * TINY * tangents[n] if n in tangents else a for n, a in arrays.items()}
        return np.array([np.imag(v) / TINY for v, _ in self.rollout(arrays, moved, steps, **more)])

    def lacking(self, arrays, tangents, steps):
        """The same without what the fault loses on the way back."""
        task, words = self.problem, self.arguments
        if self.fault == "cut" and words[0] == "window":
            last = [t - int(words[1]) + 1 for t in range(task.steps)]  # the step from which a term is seen
            rows = (self.tangent(arrays, tangents, cuts=(max(first, -1),), part=(0, t)) for t, first in enumerate(last))
            return sum(rows)
        if self.fault == "cut":
            k = int(words[1])
            every = [t for t in range(1, task.steps) if t % max(k, 1) == 0]
            cuts = {"all": range(task.steps), "once": (k,), "every": every}[words[0]]
            return self.tangent(arrays, tangents, cuts=cuts)
        if self.fault in ("slice", "without"):
            part = self.tangent(arrays, tangents, part=tuple(map(int, words[:2])))
            return part if self.fault == "slice" else self.tangent(arrays, tangents) - part
        frozen = words[0] if self.fault == "branch" else ""
        return self.tangent(arrays, tangents, steps, frozen=frozen)

    def values(self, arrays):
        self.calls += 1
        misbehave(self.fault, "values")
        pairs = self.rollout(arrays)
        values, magnitudes = [float(v) for v, _ in pairs], [float(m) for _, m in pairs]
        if self.fault == "nan_forward":
            values = [float("nan") for _ in values]
        elif self.fault == "new_value":
            values = [v + 1e-3 * self.calls for v in values]
        elif self.fault == "shifted":
            values = [v + float(self.arguments[0]) for v in values]
        elif self.fault == "short_answer":
            values, magnitudes = values[:-1], magnitudes[:-1]
        return [values, magnitudes]

    def gradients(self, arrays, cotangent=1.0):
        self.calls += 1
        misbehave(self.fault, "gradients")
        factor = passed_on(self.fault, cotangent)
        result = {o["name"]: {} for o in self.problem.objectives}
        for name in self.problem.wrt:
            columns = self.columns(arrays, name)
            for i, objective in enumerate(self.problem.objectives):
                if name in objective["wrt"]:
                    status, answer = self.spoilt(name, columns[:, i].reshape(arrays[name].shape))
                    spoilt = status == "ok" and answer.dtype.kind == "f"
                    result[objective["name"]][name] = (status, factor * answer if spoilt else answer)
        if self.fault == "forgets_one":
            result[self.problem.objectives[0]["name"]].popitem()
        return result

    def columns(self, arrays, name):
        """float64[entries, objectives], one complex step an entry."""
        steps = None
        if self.fault == "bad_step":
            dropped = int(self.arguments[0]) if self.arguments and self.arguments[0].isdigit() else DROPPED
            steps = [t for t in range(self.problem.steps) if t != dropped]
        elif self.fault == "history":  # only the steps from this one on
            steps = range(int(self.arguments[0]), self.problem.steps)
        rows = []
        for k in range(arrays[name].size):
            tangent = np.zeros(arrays[name].size)
            tangent[k] = 1.0
            rows.append(self.lacking(arrays, {name: tangent.reshape(arrays[name].shape)}, steps))
        return np.array(rows)

    def spoilt(self, name, gradient):
        """(status, array or reason) with the fault in it."""
        fault = self.fault
        if fault in ("null", "refused", "disconnected"):
            return fault, f"the fake backend has no gradient of {name}"
        if fault == "zero":
            gradient = 0.0 * gradient
        elif fault == "scaled":
            gradient = 1.001 * gradient
        elif fault == "negated":
            gradient = -gradient
        elif fault == "times" and (len(self.arguments) < 2 or name in self.arguments[1].split(",")):
            gradient = float(self.arguments[0]) * gradient
        elif fault == "order" and name in self.arguments[2].split(","):
            gradient = float(self.arguments[1]) * ORDERS[self.arguments[0]](gradient)
        elif fault == "summed" and name in self.arguments[2].split(","):
            taken = getattr(np, self.arguments[1])(gradient, int(self.arguments[0]), keepdims=True)
            gradient = np.broadcast_to(taken, gradient.shape).copy()
        elif fault == "rounded":
            gradient = gradient.astype(self.arguments[0]).astype(gradient.dtype)
        elif fault == "one_entry":
            gradient.flat[gradient.size // 2] *= 1.01
        elif fault == "entry" and name == self.arguments[0]:
            gradient.flat[int(self.arguments[1])] += float(self.arguments[2])
        elif fault == "entries" and name == self.arguments[0]:
            for index, error in (pair.split("=") for pair in self.arguments[1].split(",")):
                gradient.flat[int(index)] += float(error)
        elif fault == "row" and name == self.arguments[0]:
            gradient[int(self.arguments[1])] *= float(self.arguments[2])
        elif fault == "nan":
            gradient.flat[0] = np.nan
        elif fault == "wrong_shape":
            gradient = gradient.reshape(1, -1)
        elif fault == "text":
            gradient = np.array([object()] * gradient.size, dtype=object).reshape(gradient.shape)
        elif fault == "new_gradient":
            gradient = gradient * (1 + 1e-3 * self.calls)
        return "ok", gradient


def passed_on(fault, cotangent):
    """What a reverse rule makes of its cotangent: healthy ones pass it on."""
    return {
        "ignores_cotangent": 1.0,
        "squares_cotangent": cotangent**2,
        "clips": np.clip(cotangent, -2, 2),
        "adds_to_cotangent": cotangent + 0.5,
        "overflows": cotangent if abs(cotangent) <= 1 else np.inf,
    }.get(fault, cotangent)


def misbehave(fault, where):
    """What a fault does to the process, whatever is computed."""
    if fault == "chatter":
        print(f"chatter on stdout in {where}")
        sys.stderr.write("chatter on stderr\n")
        os.write(1, b"\x00\xff chatter on the file descriptor\n")
    if where != "gradients":
        return
    if fault == "exits":
        print("last words")
        sys.stdout.flush()
        os._exit(7)
    elif fault == "aborts":
        os.abort()
    elif fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "hangs":
        while True:
            pass
    elif fault == "hog":
        hoard = []
        for _ in range(60):  # 600 MB, each page touched
            hoard.append(np.ones(10_000_000 // 8))
            time.sleep(0.01)
        time.sleep(5)

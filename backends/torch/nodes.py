"""The ops of an evaluation, each alone at its run-time values, and what its reverse pass does that the ops do not.

Runs inside the interpreter of the torch backend: Python >= 3.9, numpy, torch. A model that inherits Inspected needs `problem`,
`runs` (lists of objectives, each evaluated at once), `settings()` (a context: its default float) and `forward(names, *watching)`,
a context that gives ({objective: scalar}, {input: leaf}), evaluated under the contexts `watching`.
"""

import contextlib
import functools
import os
import types

import numpy as np
import torch
from gradcheck_worker import directions

from . import opened, passes, reverse, state, tape

SHOWN = ("op", "file", "line", "column", "steps", "kind", "why", "active", "defined", "reaches", "meant",
         "recurrent", "draws")  # fmt: skip


class Inspected:
    """What lets a diagnosis look into a model (see backends/README.md)."""

    def recorder(self, **changes):
        file = self.problem.step_file
        return tape.Recorder(os.path.dirname(os.path.abspath(file)) if file else "", **changes)

    @functools.cached_property
    def tape(self):
        """All objectives, recorded call by call."""
        found = self.recorder()
        for names in self.runs:
            found.begin()
            with self.watched(found, names) as (values, _):
                found.end(reverse.graph_of(values.values()))
        self.fold(found)
        self.cut_off(found)
        return found

    def cut_off(self, found):
        """Stops behind which no objective lies are nobody's cut: what is printed or kept in a log, say."""
        stops = {node["key"]: node for node in found.nodes if node["kind"] == "stop"}
        if not stops:
            return
        modes = opened.Opened(found.places, True, (), stops)
        reached = {}
        try:
            for names in self.runs:
                with self.forward(names, tape.applications(modes.applied), modes) as (values, _):
                    for name, value in values.items():
                        graph = set(reverse.graph_of([value]))
                        reached[name] = {key for key, node in modes.passed if node in graph}
        except Exception:  # not every cut can be opened: then none is left out
            return
        known = {key for key, _ in modes.passed}
        for key in known:  # the others cannot be opened
            stops[key]["reaches"] = [name for name in reached if key in reached[name]]
            stops[key]["active"] = bool(stops[key]["reaches"])

    def watched(self, recorder, names, *watching, arrays=None):
        """One forward under a recorder."""
        return self.forward(names, *watching, tape.applications(recorder.applied), recorder, arrays=arrays)

    def fold(self, found):
        """Number the runs of a call by the time steps of the rollout, where it runs equally often in each."""
        for event in found.events:
            each, rest = divmod(found.nodes[event.node]["steps"], self.problem.steps)
            if self.problem.steps > 1 and each and not rest:
                event.step //= each

    def nodes(self):
        tried = set()
        for event in self.tape.events:
            node = self.tape.nodes[event.node]
            if event.random is not None:
                node["draws"] = True
            if event.node not in tried and event.moving and node["kind"] in ("op", "custom"):
                tried.add(event.node)
                node["why"] = why_no_rule(event)
        for node in self.tape.nodes:
            if node["kind"] == "stop":
                node["meant"], node["recurrent"] = self.tape.past.meant(node), self.tape.past.recurrent(node)
        return [{key: node[key] for key in SHOWN if key in node} for node in self.tape.nodes]

    def frozen(self, arrays):
        """The objectives at these inputs, with what every cut returned at the case's own."""
        recorder, found = self.recorder(values=False, held=self.tape.stopped), {}
        for names in self.runs:
            recorder.begin()
            with self.watched(recorder, names, arrays=arrays) as (values, _):
                found.update({name: float(value.detach()) for name, value in values.items()})
        return [found[o["name"]] for o in self.problem.objectives]

    def redrawn(self, arrays, seeds):
        """[[objectives] for each seed] under other draws; None if there are none."""
        if all(event.random is None for event in self.tape.events):
            return None
        drawn = [self.under_draws(names, arrays, seeds) for names in self.runs]
        found = {name: column for columns in drawn for name, column in columns.items()}
        return np.stack([found[o["name"]] for o in self.problem.objectives], axis=1)

    def redrawn_slopes(self, tangents, seeds):
        """[[objectives] for each seed]: gradients along the tangents, under other draws; None if there are none."""
        if all(event.random is None for event in self.tape.events):
            return None
        rows = []
        for seed in seeds:
            with state.shifted(self.problem, seed):
                found = self.gradients(self.problem.arrays)
            arrays = [
                {n: value for n, (status, value) in by_input.items() if status == "ok"} for by_input in found.values()
            ]
            rows.append([sum(float(np.vdot(a[n], tangents[n])) for n in tangents if n in a) for a in arrays])
        return rows

    def focus(self, node, step):
        """One op at its values at one step (or at the first at which it runs), as a model of its own."""
        events = [e for e in self.tape.events if e.node == node and e.moving]
        if not events:
            raise ValueError(f"op {node} takes no part in any gradient")
        return Focus(next((e for e in events if e.step == step), events[0]), self)

    def births(self):
        """Where values or cotangents that are not finite come from, forward and backward."""
        found = []
        for names in self.runs:
            for name in names:
                found.extend(dict(birth, objective=name) for birth in self.births_of(name))
        return found

    def births_of(self, name):
        numbers = {node["key"]: number for number, node in enumerate(self.tape.nodes)}
        recorder = self.recorder()
        with self.watched(recorder, [name]) as (values, _):
            self.fold(recorder)

            def number_of(event):
                return numbers.get(recorder.nodes[event.node]["key"])

            if not bool(torch.isfinite(values[name])):
                return forward_births(recorder, number_of)
            return reverse.births(values[name], recorder, number_of)

    def composed(self, open_stops=False, inside=(), mend=False, objectives=None):
        """The gradients as the ops' own rules give them on what the forward pass had: saved values that are written over are
        kept, and draws that the reverse pass makes again are those of the forward pass.

        open_stops: what cuts the graph is the identity; inside: these autograd.Functions are derived from their own forward;
        mend: what is not finite counts as 0 where a cotangent is 0.
        """
        places = {self.tape.nodes[node]["key"] for node in inside}
        answers = {}
        for names in self.runs:
            for name in names if objectives is None else [n for n in names if n in objectives]:
                answers[name] = self.composed_one(name, open_stops, places, mend)
                if passes.needs_backward(answers[name]):
                    answers[name] = self.composed_one(name, open_stops, places, mend, accumulate=True)
        return answers

    def composed_one(self, name, open_stops, places, mend, accumulate=False):
        objective = next(o for o in self.problem.objectives if o["name"] == name)
        recorder = self.recorder()
        modes = opened.Opened(recorder.places, open_stops, places)
        kept = reverse.Kept(recorder)
        with contextlib.ExitStack() as stack:
            if open_stops or places:
                forward = self.forward([name], tape.applications(modes.applied), modes)
            else:
                forward = self.watched(recorder, [name], kept.hooks())
            values, inputs = stack.enter_context(forward)
            if mend:
                reverse.mended(values[name])
            stack.enter_context(kept.redrawing(values[name]))
            return passes.watched(values[name], {n: inputs[n] for n in objective["wrt"]}, 1.0, accumulate)

    def discrepancies(self):
        """What the reverse pass has not as the forward pass had it: draws made anew, and saved values that were written over."""
        numbers = {node["key"]: number for number, node in enumerate(self.tape.nodes)}
        found = {}
        for names in self.runs:
            for name in names:
                recorder, kept = self.listened(name)
                for kind, event, by in kept.discrepancies():
                    node = numbers.get(recorder.nodes[event.node]["key"])
                    writer = None if by is None else numbers.get(recorder.nodes[by.node]["key"])
                    if node is not None:
                        found.setdefault((kind, node), {"kind": kind, "node": node, "by": writer, "objective": name})
        return list(found.values())

    def listened(self, name, accumulate=False):
        """(recorder of a forward pass, what its reverse pass had)."""
        recorder = self.recorder()
        kept = reverse.Kept(recorder)
        with self.watched(recorder, [name], kept.hooks()) as (values, inputs), kept.listening(values[name]):
            answers = passes.watched(values[name], inputs, 1.0, accumulate)
        return self.listened(name, True) if passes.needs_backward(answers) and not accumulate else (recorder, kept)


class InspectedUnrolled:
    """The same of a scan, whose inside the operator hides: of the same step in a loop. `unrolled()` makes that model."""

    @functools.cached_property
    def in_a_loop(self):
        return self.unrolled()

    def nodes(self):
        return self.in_a_loop.nodes()

    def redrawn_slopes(self, tangents, seeds):
        return self.in_a_loop.redrawn_slopes(tangents, seeds)

    def focus(self, node, step):
        return self.in_a_loop.focus(node, step)

    def births(self):
        return self.in_a_loop.births()

    def composed(self, **changes):
        return self.in_a_loop.composed(**changes)

    def frozen(self, arrays):
        return self.in_a_loop.frozen(arrays)

    def redrawn(self, arrays, seeds):
        return self.in_a_loop.redrawn(arrays, seeds)


def forward_births(recorder, number_of):
    """The first call whose results are not finite though its inputs are."""
    for event in recorder.events:
        spoilt = [r for r in event.results if not bool(torch.isfinite(r).all())]
        if spoilt and all(is_finite(value) for value in event.inputs):
            bad = ~torch.isfinite(spoilt[0])
            same = [v for v in event.inputs if v.shape == spoilt[0].shape and v.is_floating_point()]
            return [
                {
                    "node": number_of(event),
                    "step": step_of(recorder, event),
                    "where": "forward",
                    "input": float(same[0][bad][0]) if same else None,
                    "result": float(spoilt[0][bad][0]),
                }
            ]
    return []


def step_of(recorder, event):
    return event.step if recorder.nodes[event.node]["steps"] > 1 else None


def is_finite(value):
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def why_no_rule(event):
    """What an op's own reverse rule raises, or ""."""
    try:
        values = [v.requires_grad_(k in event.moving) for k, v in enumerate(copies(event))]
        results = event.again(values)
        moving = [values[k] for k in event.moving]
        torch.autograd.grad(results, moving, [torch.zeros_like(r) for r in results], allow_unused=True)
    except Exception as error:  # whatever the user's rule raises, or torch about the lack of one
        return f"its reverse rule raises {type(error).__name__}: {error}".splitlines()[0]
    return ""


def copies(event):
    return [value.clone() for value in event.inputs]


class Focus:
    """One op at the values it had at one step, as a case of its own: inputs "input k", objectives "output k", each a dot product
    with a fixed random cotangent. Inputs through which no gradient passes stay as they were.
    """

    def __init__(self, event, model):
        self.event, self.model = event, model
        with self.settings():
            results = event.again(self.filled({}))
        if not results:
            raise ValueError("the op's results take no part in any gradient when it is called alone")
        self.weights = [fixed_cotangent(k, result) for k, result in enumerate(results)]
        arrays = {f"input {k}": event.inputs[k].cpu().numpy().copy() for k in event.moving}
        self.problem = types.SimpleNamespace(
            arrays=arrays,
            objectives=[{"name": f"output {k}", "wrt": list(arrays)} for k in range(len(results))],
            dtype="float32" if any(a.dtype == np.float32 for a in arrays.values()) else "float64",
        )
        self.finite_in = all(is_finite(value) for value in event.inputs)
        self.finite_out = all(is_finite(result) for result in results)

    def settings(self):
        return self.model.settings()

    def filled(self, arrays):
        values = copies(self.event)
        for k in self.event.moving:
            if f"input {k}" in arrays:
                values[k] = torch.tensor(arrays[f"input {k}"]).reshape(values[k].shape)
            values[k].requires_grad_()
        return values

    def values(self, arrays):
        with self.settings():
            results = self.event.again(self.filled(arrays))
        terms = [result.detach() * w for result, w in zip(results, self.weights)]
        return [[float(t.sum()) for t in terms], [float(t.abs().sum()) for t in terms]]

    def gradients(self, arrays, cotangent=1.0):
        answers = {}
        with self.settings():
            for k, weight in enumerate(self.weights):
                values = self.filled(arrays)
                result = self.event.again(values)[k]
                moving = {f"input {m}": values[m] for m in self.event.moving}
                try:
                    found = torch.autograd.grad(result, list(moving.values()), cotangent * weight, allow_unused=True)
                    row = {n: ("ok", as_array(g, moving[n])) for n, g in zip(moving, found)}
                except Exception as error:  # whatever the user's rule raises, or torch about the lack of one
                    row = dict.fromkeys(moving, ("null", f"{type(error).__name__}: {error}"))
                answers[f"output {k}"] = row
        return answers


def as_array(gradient, tensor):
    gradient = torch.zeros_like(tensor) if gradient is None else gradient
    return gradient.detach().to_dense().cpu().numpy().reshape(tuple(tensor.shape))


def fixed_cotangent(number, result):
    flat = torch.from_numpy(directions.expand(number + 1, 0, result.numel()))
    return flat.reshape(result.shape).to(result.detach())

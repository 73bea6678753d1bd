"""The ops of a rollout, each alone at its run-time values, and the gradient composed from their own reverse rules.

Runs inside the interpreter of the jax backend: Python >= 3.9, numpy, JAX. A model that inherits Inspected needs `problem`,
`moving` (name -> array), `in_precision()`, a scope, and `listed(moving)` -> (list of objectives, their magnitudes), not jitted.
"""

import functools
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
from gradcheck_worker import directions

from . import lineage, program
from .precision import precise
from .tape import SELECTS, Tape, apply, is_finite, is_inexact

SHOWN = ("op", "file", "line", "column", "text", "steps", "kind", "why", "active", "defined")
STATEFUL = ("rng_uniform",)  # draws from a state of the process, not from a key
EAGER = 16  # runs of one op before its reverse rule is compiled
SELECTS_TRIED = 8


class Inspected:
    """What lets a diagnosis look into a model (see backends/README.md)."""

    changed = None, None  # what the last changed recording was changed by, and the recording

    @functools.cached_property
    def tape(self):
        return self.record()

    @precise
    def record(self, **changes):
        """Run the objectives op by op."""
        task = self.problem
        folder = os.path.dirname(os.path.abspath(task.step_file)) if task.step_file else ""
        unrolled = task.rollout == "unroll"
        moving = changes.pop("arrays", self.given)
        return Tape(self.scalars, moving, task.wrt, task.steps, unrolled, folder, **changes)

    def scalars(self, moving):
        """The objectives as a list of scalars."""
        return self.listed(moving)[0]

    @property
    def given(self):
        return {name: self.problem.arrays[name] for name in self.moving}

    @precise
    def nodes(self):
        for event in self.tape.events:
            node = self.tape.nodes[event.node] if event.node is not None else None
            if node is not None and node["kind"] in ("op", "custom") and not node["tried"]:
                node["tried"], node["why"] = True, why_no_rule(event)
        ops = [dict({key: node[key] for key in SHOWN}, **self.told_of(number, node)) for number, node in self.listing]
        return [*ops, *map(self.told_call, self.tape.calls.values())]

    def told_call(self, call):
        """A call of a library function, which can be looked at as a whole, as a node."""
        file, line, column = call["place"]
        parts = [self.numbers[number] for number in call["parts"] if number in self.numbers]
        return {"op": call["op"], "file": file, "line": line, "column": column, "text": "", "steps": len(call["events"]),
                "kind": "call", "why": "", "active": True, "defined": "", "parts": parts}  # fmt: skip

    def told_of(self, number, node):
        """What is known of stops and draws beside what all nodes have."""
        if node["kind"] == "stop":
            ends = zip(self.problem.objectives, self.tape.results)
            reaches = [o["name"] for o, value in ends if number in value.past.behind]
            recurrent = number in node["behind"]
            return {"meant": lineage.meant(number, node), "reaches": reaches, "recurrent": recurrent}
        if node["stepwise"]:
            return {"stepwise": True, "kind": node["kind"] if node["float"] else "integer"}
        if node["primitive"] in STATEFUL:
            return {
                "stateful": True,
                "again": program.gradient_draws_again(self.scalars, self.given, node["primitive"]),
            }
        if node["kind"] == "draw":
            place = [node[key] for key in ("op", "file", "line")]
            same = [
                n for n in self.tape.nodes if n["kind"] == "draw" and [n[k] for k in ("op", "file", "line")] == place
            ]
            drawn = [digest for n in same for digest in n["drawn"]]
            return {"shared": len(drawn) > 1 and len(set(drawn)) == 1, "steps": len(drawn)}
        return {}

    @functools.cached_property
    def traced(self):
        """The program of the objectives: traced for `forward` anyway, where that is compiled; None where it cannot be traced."""
        with self.in_precision():
            return self.forward.trace(self.given).jaxpr.jaxpr if hasattr(self.forward, "trace") else None

    @property
    def precision(self):
        """The lowest float type on the way from what is differentiated to the objectives; None if that cannot be told."""
        if self.traced is None:
            return None
        moves = [name in self.problem.wrt for name in sorted(self.given)]  # as JAX flattens a dict
        return program.precision(self.traced, moves)[1]

    @precise
    def frozen(self, arrays):
        """The objectives at these inputs, with what every stop_gradient returned at the case's own."""
        tape = self.record(arrays={name: arrays[name] for name in self.moving}, frozen=self.tape.stopped)
        return [float(value.data) for value in tape.results]

    @functools.cached_property
    def sampler(self):
        return program.Redrawn(self.scalars, self.given)

    @precise
    def redrawn(self, arrays, seeds):
        """[[objectives] for each seed] under other draws; None if there are none."""
        if not self.sampler.draws:
            return None
        return self.sampler.rows({name: arrays[name] for name in self.moving}, seeds)

    @precise
    def redrawn_slopes(self, tangents, seeds):
        """[[objectives] for each seed]: gradients along the tangents, under other draws; None if there are none."""
        if not self.sampler.draws:
            return None
        along = {name: jnp.asarray(tangent, self.given[name].dtype) for name, tangent in tangents.items()}
        return self.sampler.slopes(self.given, along, seeds)

    @functools.cached_property
    def listing(self):
        """(number on the tape, node) of the ops that are told: of floats, draws, and what makes steps of floats."""
        return [(n, node) for n, node in enumerate(self.tape.nodes) if node["float"] or node["stepwise"]]

    @functools.cached_property
    def numbers(self):
        """Number in the list by number on the tape."""
        return {number: position for position, (number, _) in enumerate(self.listing)}

    @precise
    def focus(self, node, step):
        """One op at its values at one step (or at the first at which it runs), as a model of its own."""
        if node >= len(self.listing):
            events = list(self.tape.calls.values())[node - len(self.listing)]["events"]
        else:
            events = [e for e in self.tape.events if e.node is not None and self.numbers.get(e.node) == node]
        if not events:
            raise ValueError(f"op {node} takes no part in any gradient")
        event = next((e for e in events if e.step == step), events[0])
        return Focus(event, self.in_precision)

    @precise
    def births(self):
        """Where values or cotangents that are not finite come from, forward and backward."""
        found = []
        for position, objective in enumerate(self.problem.objectives):
            finite = is_finite(self.tape.results[position].data)
            births = self.backward_births(position) if finite else self.forward_births(position)
            found.extend(dict(birth, objective=objective["name"]) for birth in births)
        return found

    def forward_births(self, position):
        if self.tape.results[position].born is None:
            return []
        event = self.tape.birth_events[self.tape.results[position].born]
        result = next(np.asarray(v.data) for v in event.outputs if not is_finite(v.data))
        spoilt = ~np.isfinite(result)
        same = [
            np.asarray(v.data)[spoilt] for v in event.inputs if np.shape(v.data) == result.shape and is_inexact(v.data)
        ]
        return [
            {
                "node": self.numbers[event.node],
                "step": event.step,
                "where": "forward",
                "input": float(same[0][0]) if same else None,
                "result": float(result[spoilt][0]),
            }
        ]

    def backward_births(self, position):
        """Ops whose reverse rule makes a finite cotangent not finite; and whether a select's other side made it 0."""
        plain = Reverse(self.tape, mend=always)
        plain.run(position)
        zeros = {id(b.event) for b in plain.births if b.zero}
        blamed = {}
        if zeros:
            for select in [*plain.selects][
                :SELECTS_TRIED
            ]:  # something nonzero on its other side: does it arrive there?
                leaking = Reverse(self.tape, leak=select, mend=always)
                leaking.run(position)
                for birth in leaking.births:
                    if id(birth.event) in zeros and not birth.zero:
                        blamed.setdefault(id(birth.event), select)
        return [self.told(birth, blamed.get(id(birth.event))) for birth in plain.births if birth.event.node is not None]

    def told(self, birth, select):
        return {
            "node": self.numbers[birth.event.node],
            "step": birth.event.step,
            "where": "backward",
            "zero_cotangent": birth.zero,
            "select": None if select is None else self.numbers[select],
            "input": birth.input,
            "cotangent": birth.cotangent,
            "result": birth.result,
        }

    @precise
    def composed(self, open_stops=False, inside=(), mend=False, lost=(), objectives=None):
        """The gradients as composed from the ops' own rules; see Tape for open_stops and inside, Reverse for mend.

        lost: numbers of parts (see parts) that hand nothing back. objectives: the names of those that are asked for, else all.
        """
        tape = self.taped(open_stops, tuple(inside))
        missing = frozenset(list(edges(tape))[number] for number in lost)
        answers = {}
        for position, objective in enumerate(self.problem.objectives):
            if objectives is None or objective["name"] in objectives:
                mended = (lambda birth: birth.zero) if mend else None
                cotangents = Reverse(tape, mend=mended, lost=missing).run(position)
                answers[objective["name"]] = {name: ("ok", cotangents[name]) for name in objective["wrt"]}
        return answers

    @precise
    def parts(self, inside=()):
        """The ways by which cotangents go back, one for every op and each of its inputs that a gradient passes through."""
        tape = self.taped(False, tuple(inside))
        return [told_part(tape.nodes, *edge, made) for edge, made in edges(tape).items()]

    def taped(self, open_stops, inside):
        """The recording with these changes; the last one is kept."""
        if not (open_stops or inside):
            return self.tape
        if self.changed[0] != (open_stops, inside):
            places = [path for node in inside for path in self.listing[node][1]["paths"]]
            self.changed = (open_stops, inside), self.record(open_stops=open_stops, inside=places)
        return self.changed[1]


def edges(tape):
    """{(node, position of the input): the node that made that input, or None}, in order of execution."""
    makers, found = {}, {}
    for event in tape.events:
        if event.node is not None:
            for position, value in enumerate(event.inputs):
                if value.active:
                    found.setdefault((event.node, position), makers.get(id(value)))
            makers.update((id(value), event.node) for value in event.outputs)
    return found


def told_part(nodes, number, position, made):
    """A part as it is sent. inner: it lies within a function with a rule of its own that was entered."""
    node = nodes[number]
    maker = {key: nodes[made][key] for key in ("op", "file", "line", "column")} if made is not None else None
    inner = any("inside" in path for path in node["paths"])
    return {
        **{key: node[key] for key in ("op", "file", "line", "column")},
        "input": position,
        "inner": inner,
        "made": maker,
    }


def always(birth):
    return True


class Birth(types.SimpleNamespace):
    """event: where; zero: the cotangent arriving at the entries in question is 0; input, cotangent, result: at the first one."""


class Reverse:
    """One reverse pass over a tape, op by op.

    leak: a node whose unselected sides get the cotangent 1 instead of 0. mend: whether what is not finite counts as 0 at a birth.
    lost: (node, position) of inputs that get nothing.
    After the pass: births, and selects, the nodes that sent zeros to an unselected side.
    """

    def __init__(self, tape, leak=None, mend=None, lost=()):
        self.tape, self.leak, self.mend, self.lost = tape, leak, mend or (lambda birth: False), lost
        self.births, self.selects = [], {}

    def run(self, position):
        """The gradients of one objective, by name: arrays; zeros where nothing arrives."""
        tape = self.tape
        self.cotangents = {}
        self.cotangents[id(tape.results[position])] = jnp.ones_like(tape.results[position].data)
        for event in reversed(tape.events):
            arriving = [self.cotangents.get(id(v)) for v in event.outputs]
            if all(c is None for c in arriving):
                continue
            arriving = [jnp.zeros_like(v.data) if c is None else c for v, c in zip(event.outputs, arriving)]
            if event.equation is None:
                leaving = event.pull(arriving)
                if leaving is None:  # values that belong together: each has a cotangent now
                    self.cotangents.update((id(v), c) for v, c in zip(event.outputs, arriving))
                    continue
                pairs = zip(event.inputs, leaving)
            else:
                pairs = self.pulled(event, arriving)
            for value in event.outputs:
                self.cotangents.pop(id(value), None)
            for value, cotangent in pairs:
                if value.active:
                    before = self.cotangents.get(id(value))
                    self.cotangents[id(value)] = cotangent if before is None else before + cotangent
        return {
            name: np.asarray(self.cotangents.get(id(v), jnp.zeros_like(v.data)))
            for name, v in tape.values.items()
            if v.active
        }

    def pulled(self, event, arriving):
        """[(input, cotangent)] of one op, by its own reverse rule."""
        if event.equation.primitive.name == "stop_gradient":
            return [(event.inputs[0], arriving[0])] if self.tape.open_stops else []
        moving = [k for k, v in enumerate(event.inputs) if v.active]
        leaving = list(self.rule(event, tuple(moving))([v.data for v in event.inputs], arriving))
        if event.equation.primitive.name in SELECTS:
            leaving = [self.other_side(event, arriving[0], c) for c in leaving]
        if all(is_finite(c) for c in arriving):
            for number, cotangent in enumerate(leaving):
                if not is_finite(cotangent):
                    leaving[number] = self.born(event, arriving, event.inputs[moving[number]], cotangent)
        return [(event.inputs[k], c) for k, c in zip(moving, leaving) if (event.node, k) not in self.lost]

    def other_side(self, event, arriving, leaving):
        """What a select hands to one side; with the leak, something also where the other side was taken."""
        if leaving.shape != arriving.shape:
            return leaving
        left_out = (leaving == 0) & (arriving != 0)
        if bool(left_out.any()):
            self.selects[event.node] = True
            if event.node == self.leak:
                return jnp.where(left_out, 1.0, leaving)
        return leaving

    def born(self, event, arriving, value, cotangent):
        """Note the birth and give the cotangent back, mended if that is wanted: then others are seen, too."""
        spoilt = ~np.isfinite(np.asarray(cotangent))
        same = [np.asarray(c) for c in arriving if c.shape == cotangent.shape]
        there = same[0][spoilt] if same else np.concatenate([np.asarray(c).reshape(-1) for c in arriving])
        birth = Birth(
            event=event,
            zero=not there.any(),
            input=float(np.asarray(value.data)[spoilt][0]),
            cotangent=float(there[0]) if there.size else 0.0,
            result=float(np.asarray(cotangent)[spoilt][0]),
        )
        self.births.append(birth)
        return jnp.where(spoilt, 0.0, cotangent) if self.mend(birth) else cotangent

    def rule(self, event, moving):
        """The reverse rule of an event's op, as a function of all its inputs and the cotangents; compiled if it is used often."""
        key = id(event.equation), moving
        count, function = self.tape.rules.get(key, (0, None))
        if function is None:
            function = functools.partial(pull, event.equation, moving)
        if count == EAGER:
            function = jax.jit(function)
        self.tape.rules[key] = count + 1, function
        return function


def why_no_rule(event):
    """What an op's own reverse rule raises, or "": traced, not run."""
    moving = tuple(k for k, v in enumerate(event.inputs) if v.active)
    given = [v.data for v in event.inputs]

    def traced(*parts):
        values = list(given)
        for k, part in zip(moving, parts):
            values[k] = part
        return pull(event.equation, moving, values, [jnp.zeros_like(v.data) for v in event.outputs])

    try:
        jax.eval_shape(traced, *(given[k] for k in moving))
    except Exception as error:  # whatever the user's rule raises, or JAX about the lack of one
        return f"its reverse rule raises {type(error).__name__}: {error}".splitlines()[0]
    return ""


def pull(equation, moving, values, arriving):
    """Cotangents of the moving inputs of one equation. moving: positions; arriving: one cotangent for every result."""

    def moved(*parts):
        full = list(values)
        for position, part in zip(moving, parts):
            full[position] = part
        return [result for result in apply(equation, full) if is_inexact(result)]

    results, back = jax.vjp(moved, *(values[k] for k in moving))
    return back([c.astype(r.dtype) for r, c in zip(results, [c for c in arriving if is_inexact(c)])])


class Focus:
    """One op at the values it had at one step, as a case of its own: inputs "input k", objectives "output k", each a dot product
    with a fixed random cotangent. Inputs through which no gradient passes stay as they were.
    """

    def __init__(self, event, in_precision):
        self.in_precision = in_precision
        self.equation, self.given = event.equation, [v.data for v in event.inputs]
        self.moving = tuple(k for k, v in enumerate(event.inputs) if v.active)
        params = getattr(self.equation, "params", {})
        inner = params.get("call_jaxpr", params.get("fun_jaxpr"))
        self.held = list(getattr(inner, "consts", ()))
        results = [v.data for v in event.outputs]
        for data in [*results, *(self.given[k] for k in self.moving)]:
            if is_inexact(data) and data.dtype not in (np.float32, np.float64):
                raise ValueError(f"it computes in {data.dtype}, in which differences cannot tell")
        self.results = [k for k, r in enumerate(results) if is_inexact(r)]
        self.cotangents = {f"output {k}": fixed_cotangent(k, results[k]) for k in self.results}
        arrays = {f"input {k}": np.asarray(self.given[k]) for k in self.moving}
        self.problem = types.SimpleNamespace(
            arrays=arrays,
            objectives=[{"name": f"output {k}", "wrt": list(arrays)} for k in self.results],
            dtype="float32" if any(a.dtype == np.float32 for a in arrays.values()) else "float64",
        )
        self.finite_in = all(is_finite(v) for v in self.given)
        self.finite_out = all(is_finite(r) for r in results)

    def filled(self, arrays):
        values = list(self.given)
        for k in self.moving:
            values[k] = jnp.asarray(arrays[f"input {k}"])
        return values

    @precise
    def values(self, arrays):
        results = apply(self.equation, self.filled(arrays))
        terms = [np.asarray(results[k]) * w for k, w in zip(self.results, self.cotangents.values())]
        return [[float(t.sum()) for t in terms], [float(np.abs(t).sum()) for t in terms]]

    @precise
    def gradients(self, arrays, cotangent=1.0):
        values, answers = self.filled(arrays), {}
        for position, k in enumerate(self.results):
            share = [cotangent if i == position else 0 for i in range(len(self.results))]
            arriving = [jnp.asarray((part * w).astype(w.dtype)) for part, w in zip(share, self.cotangents.values())]
            try:
                leaving = pull(self.equation, self.moving, values, arriving)
                row = {f"input {m}": ("ok", np.asarray(c)) for m, c in zip(self.moving, leaving)}
            except Exception as error:  # whatever the user's rule raises, or JAX about the lack of one
                row = {f"input {m}": ("null", f"{type(error).__name__}: {error}") for m in self.moving}
            answers[f"output {k}"] = row
        return answers


def fixed_cotangent(number, result):
    flat = directions.expand(number + 1, 0, int(np.size(result)))
    return flat.reshape(np.shape(result)).astype(np.asarray(result).dtype)

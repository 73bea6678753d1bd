"""One evaluation recorded op by op: which ops run, on which lines, with which values at which steps.

Runs inside the interpreter of the jax backend: Python >= 3.9, numpy, JAX. Loops, branches and calls are entered; a function
with a reverse rule of its own (custom_vjp, custom_jvp) is one op.
"""

import itertools
import os
import sysconfig

import jax
import jax.numpy as jnp
import numpy as np

from . import lineage

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "call": "call_jaxpr",
         "remat2": "jaxpr", "checkpoint": "jaxpr", "remat": "jaxpr"}  # fmt: skip
CUSTOM = {"custom_vjp_call": "custom_vjp", "custom_jvp_call": "custom_jvp", "custom_vjp_call_jaxpr": "custom_vjp"}
OPAQUE = {
    "pure_callback": "a callback into Python",
    "io_callback": "a callback into Python",
    "ffi_call": "a foreign function",
}
DRAWS = ("random_bits", "threefry2x32", "rng_uniform", "rng_bit_generator", "random_gamma")
SELECTS = ("select_n", "max", "min", "clamp")  # hand nothing to the side that was not taken
NAMES = {"select_n": "where", "convert_element_type": "astype"}  # as users write them
BYTES = 1 << 30  # what all values of a run may take


class TooLarge(Exception):
    """The values of all ops at all steps would not fit."""


class Value:
    """One array of the run. active: a gradient that is asked for passes through it; born: number of the birth that spoilt it;
    past: see lineage.
    """

    __slots__ = ("active", "born", "data", "past")

    def __init__(self, data, active=False, born=None, past=lineage.NOTHING):
        self.data, self.active, self.born, self.past = data, active, born, past


class Event:
    """One op at one step (or glue, with no node): what went in, what came out, and how cotangents go back."""

    __slots__ = ("equation", "inputs", "node", "outputs", "pull", "step")

    def __init__(self, node, step, equation, inputs, outputs, pull=None):
        self.node, self.step, self.equation, self.pull = node, step, equation, pull
        self.inputs, self.outputs = inputs, outputs


class Tape:
    """One evaluation of a function that returns a list of scalars, op by op.

    inputs: name -> array; wrt: the names that gradients are asked for. steps: of the rollout; unrolled: it is no loop of JAX but
    one of Python. folder: where the user's step is, "" if it may be anywhere. open_stops: stop_gradient lets gradients through;
    inside: places (see `paths`) of functions with a rule of their own that are entered. frozen: what every stop returns, in
    order, in place of its operand; `stopped` holds what they returned here.
    """

    def __init__(self, function, inputs, wrt, steps, unrolled, folder, open_stops=False, inside=(), frozen=None):
        closed = jax.make_jaxpr(function)(inputs)
        self.folder, self.open_stops, self.inside = folder, open_stops, frozenset(inside)
        self.nodes, self.numbers, self.events, self.birth_events, self.bytes = [], {}, [], [], 0
        self.calls, self.grouped = {}, {}  # place of a library call -> its name, its ops and its runs
        self.step, self.stopped, self.frozen = None, [], None if frozen is None else list(frozen)
        self.rules = {}  # reverse rules in use, see Reverse
        names = sorted(inputs)  # as JAX flattens a dict
        pasts = {True: lineage.NOTHING._replace(depends=True), False: lineage.NOTHING}
        self.values = {n: Value(jnp.asarray(inputs[n]), n in wrt, past=pasts[n in wrt]) for n in names}
        self.results = self.run(closed.jaxpr, closed.consts, [self.values[name] for name in names], (), None)
        if unrolled:
            self.fold(steps)

    # -- forward -------------------------------------------------------------------------------------------------------

    def run(self, jaxpr, constants, inputs, path, within):
        """Run the equations of a jaxpr. within: (place, function) of the library call that it is the inside of, or None."""
        known = dict(zip(jaxpr.constvars, map(Value, constants)))
        known.update(zip(jaxpr.invars, inputs))

        def read(atom):
            return Value(atom.val) if hasattr(atom, "val") else known[atom]

        for number, equation in enumerate(jaxpr.eqns):
            results = self.equation(equation, [read(a) for a in equation.invars], (*path, number), within)
            known.update(zip(equation.outvars, results))
        for group in () if within else self.groups(jaxpr):
            parts = [self.numbers[p] for k in group.span if (p := (*path, k)) in self.numbers]
            inputs, results = ([known[v] for v in atoms] for atoms in (group.inputs, group.outputs))
            self.note_call((*path, group.span), group.name, group.place, parts, group, inputs, results)
        return [read(a) for a in jaxpr.outvars]

    def groups(self, jaxpr):
        """Neighbouring equations of a jaxpr that one call of a library function made; found once."""
        if id(jaxpr) not in self.grouped:
            self.grouped[id(jaxpr)] = list(library_groups(jaxpr, self.folder))
        return self.grouped[id(jaxpr)]

    def note_call(self, path, name, at, parts, equation, inputs, results):
        """Note a run of a library function as a whole, which can then be looked at as one op."""
        if any(v.active for v in inputs) and any(v.active for v in results):
            call = self.calls.setdefault(path, {"op": name, "place": at, "parts": parts, "events": []})
            call["events"].append(Event(None, self.step, equation, inputs, results))

    def equation(self, equation, inputs, path, within):
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            inner = params[CALLS[name]]
            jaxpr, constants = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
            if within is not None or (call := self.library_call(equation, jaxpr)) is None:
                return self.run(jaxpr, constants, inputs, path, within)
            return self.called(equation, inputs, path, call, lambda: self.run(jaxpr, constants, inputs, path, call))
        if name == "scan":
            return self.scan(params, inputs, path, within)
        if name == "while":
            return self.while_loop(equation, inputs, path, within)
        if name == "cond":
            branch = int(np.clip(np.asarray(inputs[0].data), 0, len(params["branches"]) - 1))
            inner = params["branches"][branch]
            return self.run(inner.jaxpr, inner.consts, inputs[1:], (*path, branch), within)
        node = self.node(equation, path, within)
        if name in CUSTOM and path in self.inside:
            inner = params.get("call_jaxpr") or params["fun_jaxpr"]
            return self.run(inner.jaxpr, inner.consts, inputs, (*path, "inside"), within)
        return self.op(node, equation, inputs)

    def called(self, equation, inputs, path, call, run):
        """Run a jitted function of JAX's own library, op by op."""
        first = len(self.nodes)
        results = run()
        self.note_call(path, call[1], call[0], list(range(first, len(self.nodes))), equation, inputs, results)
        return results

    def op(self, node, equation, inputs):
        """Run one op and keep what a reverse pass needs."""
        name = equation.primitive.name
        outputs = [Value(data) for data in apply(equation, [v.data for v in inputs])]
        if name == "stop_gradient":
            if self.frozen is not None:
                outputs[0].data = self.frozen[len(self.stopped)]
            self.stopped.append(outputs[0].data)
        elif name in DRAWS:
            self.nodes[node]["drawn"].append(hash(np.asarray(outputs[-1].data).tobytes()))
        past = lineage.after(name, node, self.nodes, inputs, outputs, is_inexact)
        stopped = name == "stop_gradient" and not self.open_stops
        active = any(v.active for v in inputs)
        event = Event(node, self.step, equation, inputs, outputs)
        if active:
            self.nodes[node]["active"] = True
        for value in outputs:
            value.active, value.past = active and not stopped and is_inexact(value.data), past
        self.nodes[node]["steps"] += 1
        self.nodes[node]["float"] |= any(is_inexact(v.data) for v in outputs)
        self.note_birth(event)
        if active and (stopped or any(v.active for v in outputs)):
            self.keep(event)
        return outputs

    def keep(self, event):
        self.events.append(event)
        self.bytes += sum(getattr(v.data, "nbytes", 0) for v in event.outputs)
        if self.bytes > BYTES:
            raise TooLarge(f"the values of all ops at all steps take more than {BYTES >> 30} GB")

    def note_birth(self, event):
        """Remember the op that first made a value not finite, as far as that reaches."""
        spoilt = [v for v in event.outputs if not is_finite(v.data)]
        if not spoilt:
            return
        known = [v.born for v in event.inputs if v.born is not None]
        if known:
            born = min(known)
        elif all(is_finite(v.data) for v in event.inputs):
            born = len(self.birth_events)
            self.birth_events.append(event)
        else:
            return
        for value in spoilt:
            value.born = born

    def scan(self, params, inputs, path, within):
        length, body = params["length"], params["jaxpr"]
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        constants, carry = inputs[:first], inputs[first:last]
        rows = [self.unstack(sequence, length) for sequence in inputs[last:]]
        order = range(length)[::-1] if params["reverse"] else range(length)
        outer, collected = self.step, [None] * length
        for t in order:
            self.step = t if outer is None else outer
            results = self.run(body.jaxpr, body.consts, [*constants, *carry, *(row[t] for row in rows)], path, within)
            self.together(results)
            carry, collected[t] = results[: len(carry)], results[len(carry) :]
        self.step = outer
        count = len(body.jaxpr.outvars) - len(carry)
        avals = [v.aval for v in body.jaxpr.outvars[len(carry) :]]
        stacked = [self.stack([row[k] for row in collected], avals[k]) for k in range(count)]
        self.together([*carry, *stacked])
        return [*carry, *stacked]

    def while_loop(self, equation, inputs, path, within):
        """Run a loop of unknown length. It is a node, too: reverse mode refuses it."""
        params = equation.params
        test, body = params["cond_jaxpr"], params["body_jaxpr"]
        split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        for_test, for_body, carry = inputs[: split[0]], inputs[split[0] : split[1]], inputs[split[1] :]
        node = self.node(equation, path, within, kind="loop")
        self.nodes[node]["steps"] += 1
        self.nodes[node]["active"] |= any(v.active for v in inputs)
        outer, turn = self.step, 0
        while bool(np.asarray(self.run(test.jaxpr, test.consts, [*for_test, *carry], (*path, "test"), within)[0].data)):
            self.step = turn if outer is None else outer
            carry = self.run(body.jaxpr, body.consts, [*for_body, *carry], (*path, "body"), within)
            turn += 1
        self.step = outer
        return carry

    # -- glue: no ops of the user's, but cotangents pass through them --------------------------------------------------

    def unstack(self, value, length):
        rows = [Value(value.data[t], value.active, value.born, value.past) for t in range(length)]
        if value.active:
            self.keep(Event(None, self.step, None, [value], rows, lambda arriving: [jnp.stack(arriving)]))
        return rows

    def stack(self, rows, aval):
        data = jnp.stack([r.data for r in rows]) if rows else jnp.zeros((0, *aval.shape), aval.dtype)
        born = min((r.born for r in rows if r.born is not None), default=None)
        stacked = Value(data, any(r.active for r in rows), born, lineage.joined(r.past for r in rows))
        if stacked.active:
            self.keep(Event(None, self.step, None, rows, [stacked], lambda arriving: list(arriving[0])))
        return stacked

    def together(self, values):
        """JAX's loops give every result a cotangent as soon as one has one: zeros, which can meet an infinite derivative."""
        active = [v for v in values if v.active]
        if len(active) > 1:
            self.events.append(Event(None, self.step, None, active, active, lambda arriving: None))

    # -- which ops there are -------------------------------------------------------------------------------------------

    def node(self, equation, path, within, kind=None):
        """The number of the op at this place of the program; entered into the list at its first run."""
        if path in self.numbers:
            return self.numbers[path]
        name, defined = equation.primitive.name, ""
        file, line, column = within[0] if within else place(equation, self.folder)
        why = OPAQUE.get(name, "")
        if name in CUSTOM:
            inner = equation.params.get("call_jaxpr") or equation.params["fun_jaxpr"]
            info = inner.jaxpr.debug_info
            own = is_user_file(info.func_filename)
            defined = f"{info.func_filename}:{info.func_lineno}" if own else ""
            kind = "custom" if own else "op"
            shown = f"{CUSTOM[name]} {info.func_name}" if own else str(info.func_name)
        else:
            shown = NAMES.get(name, name)
            stop = name == "stop_gradient"
            kind = kind or ("opaque" if why else "draw" if name in DRAWS else "stop" if stop else "op")
        if within and within[1] != shown:
            shown = within[1] if kind == "draw" else f"{shown} (in {within[1]})"
        self.numbers[path] = len(self.nodes)
        self.nodes.append(
            {"op": shown, "file": file, "line": line, "column": column, "text": "", "steps": 0, "kind": kind, "why": why,
             "active": False, "defined": defined, "float": kind in ("loop", "draw"), "primitive": name, "paths": [path],
             "tried": False, "drawn": [], "behind": frozenset(), "stepped": True, "target": False, "stepwise": False}
        )  # fmt: skip
        return self.numbers[path]

    def library_call(self, equation, jaxpr):
        """(place, function) of a call into JAX's own library: its ops are blamed on the line of the call."""
        info = jaxpr.debug_info
        if info is None or not info.func_filename or is_user_file(info.func_filename):
            return None
        return place(equation, self.folder), str(info.func_name).lstrip("_")

    def fold(self, steps):
        """Give the ops of an unrolled loop one node each: what runs on one line in every step, once or several times."""
        groups = {}
        for number, node in enumerate(self.nodes):
            groups.setdefault(tuple(node[key] for key in ("file", "line", "column", "op")), []).append(number)
        nodes, moved = [], {}
        for (file, *_), numbers in groups.items():
            repeats = steps > 1 and file and len(numbers) % steps == 0
            each = len(numbers) // steps if repeats else len(numbers)
            for position, number in enumerate(numbers):
                moved[number] = len(nodes) + position % each, position // each if repeats else None
            nodes.extend(merged([self.nodes[n] for n in numbers[offset::each]]) for offset in range(each))
        for event in {id(e): e for e in [*self.events, *self.birth_events]}.values():
            if event.node is not None:
                event.node, event.step = moved[event.node]
        for call in self.calls.values():
            call["parts"] = [moved[number][0] for number in call["parts"]]
        for node in nodes:
            node["behind"] = frozenset(moved[number][0] for number in node["behind"])
        for value in self.results:
            value.past = value.past._replace(behind=frozenset(moved[number][0] for number in value.past.behind))
        self.nodes = nodes


def merged(nodes):
    """One node for the same op in several steps."""
    return dict(
        nodes[0],
        steps=sum(n["steps"] for n in nodes),
        active=any(n["active"] for n in nodes),
        float=any(n["float"] for n in nodes),
        paths=[path for n in nodes for path in n["paths"]],
        drawn=[digest for n in nodes for digest in n["drawn"]],
        behind=frozenset().union(*(n["behind"] for n in nodes)),
        stepped=all(n["stepped"] for n in nodes),
        target=any(n["target"] for n in nodes),
        stepwise=any(n["stepwise"] for n in nodes),
    )


class Group:
    """Neighbouring equations that are run as one. span: their numbers; inputs, outputs: the variables that pass its border."""

    def __init__(self, jaxpr, span, name, at):
        self.equations, self.span, self.name, self.place = jaxpr.eqns[span.start : span.stop], span, name, at
        made = {v for e in self.equations for v in e.outvars}
        read = [a for e in self.equations for a in e.invars if not hasattr(a, "val") and a not in made]
        self.inputs = list(dict.fromkeys(read))
        later = [a for e in jaxpr.eqns[span.stop :] for a in e.invars] + list(jaxpr.outvars)
        used = {a for a in later if not hasattr(a, "val")}
        self.outputs = [v for e in self.equations for v in e.outvars if v in used]

    def run(self, values):
        known = dict(zip(self.inputs, values))
        for equation in self.equations:
            given = [a.val if hasattr(a, "val") else known[a] for a in equation.invars]
            known.update(zip(equation.outvars, apply(equation, given)))
        return [known[v] for v in self.outputs]


def library_groups(jaxpr, folder):
    """Runs of two or more plain ops that the same call in the user's code made, through a function of JAX's own."""
    keys = [(place(e, folder), entry(e)) if not enters(e) else None for e in jaxpr.eqns]
    start = 0
    for stop in range(1, len(keys) + 1):
        if stop == len(keys) or keys[stop] != keys[start]:
            if stop - start > 1 and keys[start] and keys[start][1]:
                yield Group(jaxpr, range(start, stop), keys[start][1], keys[start][0])
            start = stop


def enters(equation):
    """Whether an equation has a program inside, or a rule of the user's."""
    name = equation.primitive.name
    return name in CALLS or name in CUSTOM or name in ("scan", "while", "cond")


def apply(equation, values):
    """Run one equation, or a group of them, on values; a list of results."""
    if isinstance(equation, Group):
        return equation.run(values)
    with equation.ctx.manager:
        results = equation.primitive.bind(*values, **equation.primitive.get_bind_params(equation.params))
    return results if equation.primitive.multiple_results else [results]


def is_inexact(data):
    return jnp.issubdtype(jnp.result_type(data), jnp.inexact) if not is_key(data) else False


def is_key(data):
    return jnp.issubdtype(getattr(data, "dtype", np.float64), jax.dtypes.extended)


def is_finite(data):
    return not is_inexact(data) or bool(np.isfinite(np.asarray(data)).all())


# --- source lines ----------------------------------------------------------------------------------------------------

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARIES = (
    os.path.dirname(jax.__file__) + os.sep,
    HERE + os.sep,
)  # JAX itself, and what gradcheck runs in this process
PASSED = ("xp.py", "namespace.py")  # what a step calls: the user's frames are above
TYPED = ("<ipython-input", "<python-input", "<stdin>")  # no files, but lines of the user's
PLUMBING = ("traceback_util.py", "api.py", "pjit.py", "core.py", "ufunc_api.py", "array_methods.py", "partial_eval.py",
            "ad.py", "batching.py")  # fmt: skip
STANDARD = sysconfig.get_paths()["stdlib"] + os.sep


def is_ours(file):
    return file.startswith(HERE + os.sep) and os.path.basename(file) not in PASSED


def is_user_file(file):
    standard = file.startswith(STANDARD) and "site-packages" not in file
    typed = file.startswith(TYPED)
    return bool(file) and (typed or not file.startswith((*LIBRARIES, "<"))) and not standard


def entry(equation):
    """The function of JAX's own that the code outside JAX called to make an equation; "" if that is not known."""
    traceback = equation.source_info.traceback
    name = ""
    for code in traceback.raw_frames()[0] if traceback else ():
        if not code.co_filename.startswith(LIBRARIES[0]):
            break
        if os.path.basename(code.co_filename) not in PLUMBING:
            name = code.co_name
    return name.lstrip("_")


def place(equation, folder):
    """(file, line, column) of the call that made an equation: the last frame in the step's folder, else in others' code.

    Above a frame of gradcheck's there may be the user's call of gradcheck, but no op of the model.
    """
    traceback = equation.source_info.traceback
    raw = zip(*traceback.raw_frames()) if traceback else ()
    inside = itertools.takewhile(lambda frame: not is_ours(frame[0].co_filename), raw)
    frames = [(code.co_filename, code, at) for code, at in inside if is_user_file(code.co_filename)]
    own = [f for f in frames if os.path.dirname(os.path.abspath(f[0])) == folder]
    others = [f for f in frames if "site-packages" not in f[0]]
    for file, code, at in (own or others or frames)[:1]:
        line, column, *_ = traceback.code_addr2location(code, at)
        return file, int(line), int(column) + 1
    return "", 0, 0

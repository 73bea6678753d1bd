"""Runs a graph of Apply nodes one by one and backward again, each node by its own rule: a tape, with the bodies of loops entered.

Runs inside a backend's interpreter: Python >= 3.9, numpy >= 1.22, and the framework that the caller hands in (`grad` of
Theano; the graphs of PyTensor have the same shape). Nothing is compiled and nothing rewritten: what runs is what the user wrote.
"""

import copy

import numpy as np


class Null:
    """The cotangent that a rule does not give ("null" or "refused"), in the framework's words. It spreads to all upstream."""

    def __init__(self, why, status="null"):
        self.why, self.status = why, status


class Missing(Exception):
    """Stands for a value that could not be computed, because its node or one before it raised."""


def inner_inputs(op):
    return list(getattr(op, "local_inputs", None) or op.inputs)


def inner_outputs(op):
    return list(getattr(op, "local_outputs", None) or op.outputs)


def lineage(op):
    """The names of an op's classes: what it is, without importing what defines it."""
    return {cls.__name__ for cls in type(op).__mro__}


def toposort(outputs, known=()):
    """The Apply nodes that compute the outputs from the known variables and the graph's own leaves, in order of execution."""
    known, done, order = set(known), set(), []
    stack = [(v.owner, False) for v in reversed(outputs) if v.owner is not None and v not in known]
    while stack:
        node, inputs_are_done = stack.pop()
        if node in done:
            continue
        if inputs_are_done:
            done.add(node)
            order.append(node)
            continue
        stack.append((node, True))
        stack.extend((v.owner, False) for v in reversed(node.inputs) if v.owner is not None and v not in known)
    return order


def is_float(variable):
    return str(getattr(variable.type, "dtype", "")).startswith("float")


def is_constant(variable):
    return hasattr(variable, "data")


def finite(*values):
    return all(np.isfinite(v).all() for v in map(as_array, values) if isinstance(v, np.ndarray) and v.dtype.kind == "f")


class Machine:
    """Executes single nodes with the op's own Python code, and holds what was prepared for that.

    grad: (cotangents by output, inputs) -> {input: ("ok", variable) or (status, reason)}: the framework's own differentiation.
    same: ([variables], [variables]) -> whether they are the same computation.
    """

    def __init__(self, grad, same):
        self.grad, self.same = grad, same
        self.thunks, self.rules = {}, {}
        self.failures = {}  # node -> why it could not be executed

    def execute(self, node, inputs):
        """The node's outputs, as new arrays or views of the inputs."""
        if "IfElse" in lineage(node.op):
            count = len(node.outputs)
            chosen = inputs[1 : 1 + count] if inputs[0] else inputs[1 + count :]
            if any(value is Missing for value in chosen):
                raise Missing
            return chosen
        if any(value is Missing for value in inputs):
            raise Missing
        if "AllocEmpty" in lineage(node.op):  # what a scan writes its steps into: must not look like values
            return [np.zeros([int(n) for n in inputs], dtype=node.outputs[0].type.dtype)]
        if node not in self.thunks:
            self.thunks[node] = self.prepared(node)
        sources, targets, thunk = self.thunks[node]
        destroyed = {i for places in (getattr(node.op, "destroy_map", None) or {}).values() for i in places}
        for i, value in enumerate(inputs):
            sources[node.inputs[i]][0] = copy.deepcopy(value) if i in destroyed else value
        for target in targets:
            target[0] = None  # an op writes into an array that it finds here
        with np.errstate(all="ignore"):
            thunk()
        return [as_array(target[0]) for target in targets]

    def prepared(self, node):
        storage = {v: [None] for v in (*node.inputs, *node.outputs)}
        computed = {v: [True] for v in storage}
        thunk = node.op.make_thunk(node, storage, computed, [], impl="py")
        return {v: storage[v] for v in node.inputs}, [storage[v] for v in node.outputs], thunk

    def run(self, order, env):
        """Add the outputs of these nodes to env (variable -> value). A node that raises leaves its outputs Missing."""
        for node in order:
            try:
                values = self.execute(node, [value_of(v, env) for v in node.inputs])
            except Missing:
                values = [Missing] * len(node.outputs)
            except Exception as error:
                self.failures.setdefault(node, f"{type(error).__name__}: {error}".split("\n")[0])
                values = [Missing] * len(node.outputs)
            env.update(zip(node.outputs, values))
        return env

    def rule(self, node, live):
        """The node's own reverse rule, as variables. live: numbers of the outputs that have a cotangent.

        (cotangent variables by output, {input variable: (status, variable or reason)}, order of execution)
        """
        key = node, live
        if key not in self.rules:
            seeds = {node.outputs[i]: node.outputs[i].type() for i in live}
            inputs = list(dict.fromkeys(v for v in node.inputs if is_float(v) and not is_constant(v)))
            taken = self.grad(seeds, inputs)
            floats = [v for v in node.outputs if is_float(v)]
            if len(seeds) < len(floats) and any(status in ("null", "refused") for status, _ in taken.values()):
                # a rule may expect a cotangent of every output: here it gets zeros for the others
                more = {v: seeds.get(v) or v.type() for v in floats}
                again = self.grad(more, inputs)
                if not any(status in ("null", "refused") for status, _ in again.values()):
                    seeds, taken = more, again
            there = [g for status, g in taken.values() if status == "ok"]
            known = [*node.inputs, *node.outputs, *seeds.values()]
            self.rules[key] = seeds, taken, toposort(there, known)
        return self.rules[key]

    def pull(self, node, env, cotangents):
        """{input variable: array, or Null, or None where there is no path}, by the node's own rule.

        env: the values of its inputs and outputs. cotangents: arrays by output variable; outputs without one are left out.
        """
        live = tuple(i for i, v in enumerate(node.outputs) if v in cotangents)
        seeds, taken, order = self.rule(node, live)
        local = {v: value_of(v, env) for v in (*node.inputs, *node.outputs)}
        local.update((seed, cotangents[v] if v in cotangents else np.zeros_like(local[v])) for v, seed in seeds.items())
        self.run(order, local)
        result = {}
        for v, (status, given) in taken.items():
            value = value_of(given, local) if status == "ok" else None
            if status == "ok" and value is Missing:
                why = [self.failures[n] for n in order if n in self.failures]
                result[v] = Null(f"its reverse rule raises {why[0]}" if why else "its inputs have no values", "refused")
            elif status == "ok":
                result[v] = fitted(as_array(value), local[v])
            else:
                result[v] = None if status == "disconnected" else Null(given, status)
        return result


def as_array(value):
    return np.asarray(value) if isinstance(value, np.generic) else value


def fitted(cotangent, value):
    """The cotangent in its variable's shape, which a rule may leave to broadcasting; Null if it does not fit."""
    if np.shape(cotangent) == np.shape(value):
        return cotangent
    try:
        return np.broadcast_to(cotangent, np.shape(value))
    except ValueError:
        why = f"its reverse rule gives shape {np.shape(cotangent)} for an input of shape {np.shape(value)}"
        return Null(why, "refused")


def value_of(variable, env):
    if variable in env:
        return env[variable]
    if is_constant(variable):
        return variable.data
    if hasattr(variable, "get_value"):
        return variable.get_value(borrow=True)
    return Missing


def added(one, other):
    """The sum of two cotangents, each an array, Null or None."""
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, Null) or isinstance(other, Null):
        return one if isinstance(one, Null) else other
    return np.asarray(one + other)


class Body:
    """A graph that runs once or many times: the whole objective, a loop's step, a graph used as an op.

    runs: the values given to its inputs, one dict a run. Other values are computed again when they are asked for: what is
    kept is the carry's history, not every op's.
    """

    kept = 4  # runs whose values are remembered

    def __init__(self, machine, inputs, outputs):
        self.machine, self.inputs, self.outputs = machine, list(inputs), list(outputs)
        self.order = toposort(self.outputs, self.inputs)
        self.runs, self.memory = [], {}
        self.inner = {}  # node -> the Entered body of its op
        for node in self.order:
            if enters(node):
                self.inner[node] = (Loop if "Scan" in lineage(node.op) else Graph)(machine, node, self)

    def walk(self):
        """(body, node) of all nodes in order of execution, inner ones in the place of the op that holds them."""
        for node in self.order:
            if node in self.inner:
                yield from self.inner[node].walk()
            else:
                yield self, node

    def compute(self, given):
        """The values of every variable, from those of the inputs; the runs of inner bodies are recorded on the way."""
        env = dict(given)
        for node in self.order:
            if node in self.inner:
                values = [value_of(v, env) for v in node.inputs]
                env.update(zip(node.outputs, self.inner[node].record(values)))
            else:
                self.machine.run([node], env)
        return env

    def env(self, run):
        """Every value of a recorded run, those of inner bodies apart."""
        if run not in self.memory:
            env = dict(self.runs[run])
            for node in self.order:
                if node in self.inner:
                    env.update(zip(node.outputs, self.inner[node].results[run]))
                else:
                    self.machine.run([node], env)
            while len(self.memory) >= self.kept:
                self.memory.pop(next(iter(self.memory)))
            self.memory[run] = env
        return self.memory[run]

    def reverse(self, run, cotangents, rule):
        """{input variable: cotangent} of one run. cotangents: those of the outputs.

        rule: (body, node, run, env, cotangents of the node's outputs) -> those of its inputs, as Machine.pull.
        """
        env, pending = self.env(run), dict(cotangents)
        for node in reversed(self.order):
            arrived = {v: pending.pop(v) for v in node.outputs if pending.get(v) is not None and v not in self.inputs}
            if not arrived:
                continue
            refused = next((c for c in arrived.values() if isinstance(c, Null)), None)
            if refused:
                back = {v: refused for v in node.inputs if is_float(v) and not is_constant(v)}
            elif node in self.inner:
                back = self.inner[node].pull(run, arrived, rule)
            else:
                back = rule(self, node, run, env, arrived)
            for v, cotangent in back.items():
                pending[v] = added(pending.get(v), cotangent)
        return {v: pending.get(v) for v in {*self.inputs, *pending}}


def enters(node):
    """Whether an op's own graph is looked into: scans (not those of a gradient) and graphs as ops without rules of their own."""
    names = lineage(node.op)
    if "Scan" in names:
        return Layout(node).plain
    return "OpFromGraph" in names and getattr(node.op, "_lop_is_default", False)


class Layout:
    """Which outer variable feeds which inner one. Recurrent: (outer input, outer output, taps, inner inputs, inner output)."""

    def __init__(self, node):
        op, outer, inside = node.op, list(node.inputs), inner_inputs(node.op)
        results, outputs = list(node.outputs), inner_outputs(node.op)
        self.plain = not op.inner_mitmot(inside)
        if not self.plain:  # a scan that a gradient made
            return
        self.steps = outer[0]
        self.sequences = list(zip(op.outer_seqs(outer), op.inner_seqs(inside)))
        taps = [list(t) for t in op.mitsot_taps()]
        waiting = iter(op.inner_mitsot(inside))
        grouped = [[next(waiting) for _ in group] for group in taps]
        singles = op.inner_sitsot(inside)
        self.recurrent = list(
            zip(
                [*op.outer_mitsot(outer), *op.outer_sitsot(outer)],
                [*op.outer_mitsot_outs(results), *op.outer_sitsot_outs(results)],
                [*taps, *[[-1] for _ in singles]],
                [*grouped, *[[v] for v in singles]],
                [*op.inner_mitsot_outs(outputs), *op.inner_sitsot_outs(outputs)],
            )
        )
        self.collected = list(zip(op.outer_nitsot_outs(results), op.inner_nitsot_outs(outputs)))
        self.shared = list(
            zip(
                op.outer_shared(outer),
                op.outer_shared_outs(results),
                op.inner_shared(inside),
                op.inner_shared_outs(outputs),
            )
        )
        self.fixed = list(zip(op.outer_non_seqs(outer), op.inner_non_seqs(inside)))
        self.until = outputs[-1] if op.as_while else None


class Entered(Body):
    """The body of an op, recorded once for every run of the body around it.

    spans: per outer run, its own runs (start, stop); results: per outer run, the values of the op's outputs.
    """

    def __init__(self, machine, node, around):
        super().__init__(machine, inner_inputs(node.op), inner_outputs(node.op))
        self.node, self.around, self.spans, self.results = node, around, [], []

    def outer_run(self, run):
        """The run of the body around this one in which one of its own took place, and the first of its own in there."""
        return next((i, start) for i, (start, stop) in enumerate(self.spans) if start <= run < stop)

    def record(self, values):
        """Run on the values of the op's inputs; returns those of its outputs."""
        start = len(self.runs)
        try:
            if any(value is Missing for value in values):
                raise Missing
            results = self.recorded(values)
        except Missing:
            results = [Missing] * len(self.node.outputs)
        self.spans.append((start, len(self.runs)))
        self.results.append(results)
        return results


class Graph(Entered):
    """The graph of an OpFromGraph whose reverse rule is that of its nodes."""

    def recorded(self, values):
        self.runs.append(dict(zip(self.inputs, values)))
        env = self.compute(self.runs[-1])
        return [value_of(v, env) for v in self.outputs]

    def inside_of(self, out, outer_run):
        """(variable, run) in here that a spoilt output of the op is."""
        return self.outputs[list(self.node.outputs).index(out)], self.spans[outer_run][0]

    def source_of(self, inside, run):
        """(body, variable, run) that an input in here is given."""
        return self.around, self.node.inputs[self.inputs.index(inside)], self.outer_run(run)[0]

    def pull(self, outer_run, arrived, rule):
        cotangents = {}
        for out, result in zip(self.node.outputs, self.outputs):
            cotangents[result] = added(cotangents.get(result), arrived.get(out))
        back = self.reverse(outer_run, present(cotangents), rule)
        found = {}
        for source, inside in zip(self.node.inputs, self.inputs):
            found[source] = added(found.get(source), back.get(inside))
        return found


class Loop(Entered):
    """The step of a scan."""

    def __init__(self, machine, node, around):
        super().__init__(machine, node, around)
        self.layout = Layout(node)
        self.shapes = []  # per outer run: {outer input: shape}

    def recorded(self, values):
        layout, start = self.layout, len(self.runs)
        outer = dict(zip(self.node.inputs, values))
        self.shapes.append({source: np.shape(value) for source, value in outer.items()})
        buffers = {out: np.array(outer[source]) for source, out, *_ in layout.recurrent}
        rows = {out: [] for out, _ in layout.collected}
        given = {inside: outer[source] for source, _, inside, _ in layout.shared}
        given.update((inside, outer[source]) for source, inside in layout.fixed)
        for t in range(int(outer[layout.steps])):
            given = dict(given)
            given.update((inside, np.asarray(outer[source][t])) for source, inside in layout.sequences)
            for _, out, taps, insides, _ in layout.recurrent:
                given.update((v, np.asarray(buffers[out][t + tap - min(taps)])) for tap, v in zip(taps, insides))
            self.runs.append(dict(given))
            env = self.compute(given)
            if any(value_of(v, env) is Missing for v in self.outputs):
                raise Missing
            for _, out, taps, _, result in layout.recurrent:
                buffers[out][t - min(taps)] = value_of(result, env)
            for out, result in layout.collected:
                rows[out].append(value_of(result, env))
            given.update((inside, value_of(result, env)) for _, _, inside, result in layout.shared)
            if layout.until is not None and value_of(layout.until, env):
                break
        steps = len(self.runs) - start
        named = {out: np.stack(row) for out, row in rows.items() if row}
        named.update((out, buffers[out][: steps - min(taps)]) for _, out, taps, *_ in layout.recurrent)
        named.update((out, given[inside]) for _, out, inside, _ in layout.shared)
        return [named.get(v, Missing) for v in self.node.outputs]

    def inside_of(self, out, outer_run):
        """(variable, run) in here where an output of the scan is first not finite; None if it is so from the start."""
        layout, (start, stop) = self.layout, self.spans[outer_run]
        results = {**dict(layout.collected), **{o: result for _, o, *_, result in layout.recurrent}}
        for run in range(start, stop):
            if out in results and not finite(value_of(results[out], self.env(run))):
                return results[out], run
        return None

    def source_of(self, inside, run):
        """(body, variable, run) that an input in here is given: by the step before, or from outside."""
        outer_run, start = self.outer_run(run)
        for source, _, taps, insides, result in self.layout.recurrent:
            if inside in insides:
                before = run + taps[insides.index(inside)]
                return (self, result, before) if before >= start else (self.around, source, outer_run)
        sources = {i: s for s, i in [*self.layout.sequences, *self.layout.fixed]}
        return (self.around, sources[inside], outer_run) if inside in sources else None

    def pull(self, outer_run, arrived, rule):
        """The cotangents of the scan's inputs: its steps backward, each on the values that its forward pass had."""
        layout, (start, stop) = self.layout, self.spans[outer_run]
        shapes = self.shapes[outer_run]
        carried = {out: History(shapes[source], arrived.get(out)) for source, out, *_ in layout.recurrent}
        sequences = {source: History(shapes[source]) for source, _ in layout.sequences}
        found = {}
        for t in reversed(range(stop - start)):
            cotangents = {}
            for _, out, taps, _, result in layout.recurrent:
                cotangents[result] = added(cotangents.get(result), carried[out].at(t - min(taps)))
            for out, result in layout.collected:
                whole = arrived.get(out)
                part = np.asarray(whole[t]) if isinstance(whole, np.ndarray) else whole
                cotangents[result] = added(cotangents.get(result), part)
            back = self.reverse(start + t, present(cotangents), rule)
            for _, out, taps, insides, _ in layout.recurrent:
                for tap, inside in zip(taps, insides):
                    carried[out].add(t + tap - min(taps), back.get(inside))
            for source, inside in layout.sequences:
                sequences[source].add(t, back.get(inside))
            for source, inside in layout.fixed:
                found[source] = added(found.get(source), back.get(inside))
        for source, history in sequences.items():
            found[source] = added(found.get(source), history.whole())
        for source, out, taps, *_ in layout.recurrent:
            carried[out].drop(-min(taps))
            found[source] = added(found.get(source), carried[out].whole())
        return found


class History:
    """The cotangent of a value with time in front, entry by entry; Null as a whole once one entry is."""

    def __init__(self, shape, cotangent=None):
        self.shape, self.array = shape, None
        self.refused = cotangent if isinstance(cotangent, Null) else None
        if cotangent is not None and not self.refused:
            self.array = np.zeros(shape, dtype=cotangent.dtype)
            self.array[: len(cotangent)] = cotangent  # `until` may have ended the loop early

    def at(self, index):
        if self.refused or self.array is None:
            return self.refused
        return np.asarray(self.array[index])

    def add(self, index, cotangent):
        if isinstance(cotangent, Null):
            self.refused = cotangent
        elif cotangent is not None:
            if self.array is None:
                self.array = np.zeros(self.shape, dtype=np.asarray(cotangent).dtype)
            self.array[index] += cotangent

    def drop(self, start):
        """Forget the entries from here on, which the loop wrote itself: they are no input of it."""
        if self.array is not None:
            self.array[start:] = 0

    def whole(self):
        return self.refused if self.refused else self.array


def origin(body, variable, run):
    """(body, node, run) where a value that is not finite comes from, followed back to finite inputs; None if it was given."""
    while True:
        node, inside = variable.owner, body.inner.get(variable.owner)
        if variable in body.inputs or node is None:
            given = body.source_of(variable, run) if isinstance(body, Entered) else None
        elif inside is not None:
            found = inside.inside_of(variable, run)
            given = found and (inside, *found)
        else:
            env = body.env(run)
            spoilt = [v for v in node.inputs if not finite(value_of(v, env))]
            if not spoilt:
                return body, node, run
            given = body, spoilt[0], run
        if given is None:
            return None
        body, variable, run = given


def present(cotangents):
    return {v: c for v, c in cotangents.items() if c is not None}

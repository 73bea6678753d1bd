"""Which stops of a gradient are meant, and the forward pass with what they return held fixed.

Runs inside a backend's interpreter: Python >= 3.9, numpy. A stop is meant where what it stops is stepwise (a straight-through
estimator: the derivative that is cut is zero), or where it is a target: a value that is held against one that is differentiated,
by subtraction, and that does not feed the loop that it comes from.
"""

import collections

from .tape import Body, Loop, Machine, is_float, lineage

STOPS = {"DisconnectedGrad", "ZeroGrad", "ConsiderConstant", "UndefinedGrad"}
STEPWISE = {"round_half_to_even", "round_half_away_from_zero", "floor", "ceil", "trunc", "sgn", "intdiv"}
SHAPES = {"DimShuffle", "Reshape", "Subtensor", "Rebroadcast", "Join", "SpecifyShape", "Assert"}

# depends: on an input that a gradient is asked for. alive: a gradient comes back to one. stepped: through an op that moves in
# steps. behind: the stops that it derives from. fresh: those of them that nothing but its shape has changed since.
Past = collections.namedtuple("Past", "depends alive stepped behind fresh")
NOTHING = Past(False, False, False, frozenset(), frozenset())


def joined(pasts):
    columns = list(zip(*pasts)) or [()] * len(NOTHING)
    return Past(*map(any, columns[:3]), *(frozenset().union(*column) for column in columns[3:]))


class Meanings:
    """What is seen of the stops of a recorded model. name: the name of an op, as a function of it."""

    def __init__(self, ops, name):
        self.name = name
        self.stepped, self.fed, self.targets = {}, collections.defaultdict(frozenset), set()
        start = dict.fromkeys(ops.body.inputs, NOTHING)
        start.update((ops.inputs[n], NOTHING._replace(depends=True, alive=True)) for n in ops.problem.wrt)
        known = self.follow(ops.body, start)
        self.ends = {objective: known.get(cost, NOTHING) for objective, cost in ops.costs.items()}

    def told(self, node):
        """{"meant": "stepwise", "target" or "", "reaches": the objectives that derive from it, "recurrent": whether it is given
        what derives from its own result a step before} of a stop.
        """
        why = "stepwise" if self.stepped.get(node) else "target" if self.is_target(node) else ""
        reaches = [o for o, past in self.ends.items() if node in past.behind]
        return {"meant": why, "reaches": reaches, "recurrent": node in self.fed[node]}

    def is_target(self, node):
        return node in self.targets and node not in self.fed[node]

    def follow(self, body, given):
        """The past of every variable of a body, from those of its inputs."""
        known = dict(given)
        for node in body.order:
            inside = body.inner.get(node)
            if inside is None:
                past = self.after(node, [known.get(v, NOTHING) for v in node.inputs])
                whole = past._replace(alive=False, stepped=past.stepped or past.depends)  # integers move in steps
                known.update((v, past if is_float(v) else whole) for v in node.outputs)
            elif isinstance(inside, Loop):
                known.update(self.looped(inside, known))
            else:
                found = self.follow(inside, {i: known.get(v, NOTHING) for v, i in zip(node.inputs, inside.inputs)})
                known.update((v, found.get(o, NOTHING)) for v, o in zip(node.outputs, inside.outputs))
        return known

    def looped(self, loop, known):
        """The pasts of a loop's outputs: its step is followed until what it carries stays what it is."""
        layout = loop.layout
        given = {i: known.get(outer, NOTHING) for outer, i in [*layout.sequences, *layout.fixed]}
        carried = [known.get(outer, NOTHING) for outer, *_ in layout.recurrent]
        before = None
        while before != carried:
            before = carried
            for past, (*_, insides, _) in zip(carried, layout.recurrent):
                given.update((v, past) for v in insides)
            found = self.follow(loop, given)
            carried = [
                joined([past, found.get(result, NOTHING)]) for past, (*_, result) in zip(carried, layout.recurrent)
            ]
        ends = {out: past for past, (_, out, *_) in zip(carried, layout.recurrent)}
        return {**ends, **{out: found.get(result, NOTHING) for out, result in layout.collected}}

    def after(self, node, pasts):
        """The past of an op's results, if they are floats."""
        past, op = joined(pasts), self.name(node.op)
        stepped = past.stepped or (past.depends and op in STEPWISE)
        if lineage(node.op) & STOPS:
            self.stepped[node] = self.stepped.get(node, True) and stepped
            self.fed[node] |= past.behind
            return Past(past.depends, False, stepped, past.behind | {node}, frozenset([node]))
        if op == "sub":
            for one, other in (pasts, pasts[::-1]):
                if other.alive:
                    self.targets |= one.fresh
        fresh = past.fresh if lineage(node.op) & SHAPES else frozenset()
        return past._replace(stepped=stepped, fresh=fresh)


class Holding(Machine):
    """A machine that notes what every stop returns, run by run; held: what they return instead, as noted before."""

    def __init__(self, machine, held=None):
        super().__init__(machine.grad, machine.same)
        self.held, self.noted = held, collections.defaultdict(list)

    def execute(self, node, inputs):
        results = super().execute(node, inputs)
        if lineage(node.op) & STOPS:
            runs = self.noted[node]
            if self.held is not None:
                results = [self.held[node][len(runs)]]
            runs.append(results[0])
        return results


def run(machine, ops, arrays):
    """{variable: value} of a fresh run of the model at these inputs."""
    body = Body(machine, ops.inputs.values(), ops.costs.values())
    body.runs.append({variable: arrays[name] for name, variable in ops.inputs.items()})
    return body.compute(body.runs[0])

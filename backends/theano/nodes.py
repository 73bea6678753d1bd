"""The ops of a model one by one: where each was written, its own values and reverse rule, and where a NaN is born.

Runs inside a backend's interpreter: Python >= 3.9, numpy >= 1.22. The framework comes in as functions (see tape.Machine), so
that the other framework with Apply nodes can share this.
"""

import functools
import linecache
import os
import re
from types import SimpleNamespace

import numpy as np
from gradcheck_worker import directions

from . import sampling, stops
from .stops import STOPS
from .tape import Body, Loop, Missing, Null, finite, is_constant, is_float, lineage, origin, value_of

FRAMEWORKS = {"theano", "pytensor"}
DRAWS = {"RandomVariable", "RandomFunction", "mrg_uniform_base"}
MOVERS = {  # they put values elsewhere and compute nothing: not looked at, if they are the framework's own
    "DimShuffle", "Rebroadcast", "Reshape", "Subtensor", "MakeVector", "SpecifyShape", "ScalarFromTensor", "TensorFromScalar",
    "AllocEmpty", "Assert",
}  # fmt: skip
SELECTS = {"switch", "maximum", "minimum", "clip", "ifelse"}  # hand nothing to the side that was not taken
SELECTS_TRIED = 8
NAMES = {"IfElse": "ifelse", "OpFromGraph": "OpFromGraph"}
PASSED = {"xp.py", "tensor_xp.py", "namespace.py"}  # the harness's files with a user's frame above
EVALUATIONS = 4000  # of one op in one step, by differences


class Ops:
    """The ops between a model's inputs and its costs, recorded at its own arrays.

    problem: a Problem. costs: {objective: scalar variable}; inputs: {name: variable}.
    own: folders of the frameworks, harness: our own, in whose files no user's line is.
    """

    def __init__(self, machine, problem, costs, inputs, own, harness):
        self.problem, self.costs, self.inputs = problem, costs, inputs
        self.own, self.harness = own, harness
        self.machine = machine
        self.body = Body(self.machine, inputs.values(), costs.values())
        self.body.runs.append({variable: problem.arrays[name] for name, variable in inputs.items()})
        self.env = self.body.compute(self.body.runs[0])
        self.active = {}  # body -> variables that the differentiated inputs move
        self.mark(self.body, {inputs[name] for name in problem.wrt})
        found = [(body, node) for body, node in self.body.walk() if self.counts(body, node)]
        self.listed = [
            [(body, node, run) for run in range(len(body.runs))] for body, node in found if body is not self.body
        ]
        self.listed += self.folded([node for body, node in found if body is self.body])
        order = {site: i for i, site in enumerate(found)}
        self.listed = sorted(filter(None, self.listed), key=lambda sites: order[sites[0][:2]])
        self.numbers = {}  # site -> (number, step), the step None outside of loops
        for number, sites in enumerate(self.listed):
            in_loop = len(sites) > 1 or sites[0][0] is not self.body
            self.numbers.update((site, (number, step if in_loop else None)) for step, site in enumerate(sites))
        self.known_rules = {}

    def folded(self, nodes):
        """The sites of ops outside of loops. What runs on a line of an unrolled loop in every step is one op, or several."""
        groups, steps = {}, self.problem.steps if self.problem.rollout == "unroll" else 1
        for node in nodes:
            groups.setdefault((*self.place(node), name(node.op)), []).append(node)
        listed = []
        for (file, *_), group in groups.items():
            repeats = steps if steps > 1 and file and len(group) % steps == 0 else 1
            group.sort(key=age)
            each = len(group) // repeats
            listed.extend([(self.body, node, 0) for node in group[k::each]] for k in range(each))
        return listed

    def values(self):
        """The costs, computed node by node: {objective: number}. Missing where a node before raised."""
        return {name: value_of(v, self.env) for name, v in self.costs.items()}

    # -- which ops, and what they are --------------------------------------------------------------------------------

    def moved_by(self, name):
        """{body: its variables that one of the inputs moves}."""
        every, self.active = self.active, {}
        self.mark(self.body, {self.inputs[name]})
        found, self.active = self.active, every
        return found

    def mark(self, body, moved):
        """Note what moves with the differentiated inputs: floats computed from them, around a loop until nothing is added."""
        active = self.active[body] = self.active.get(body, set()) | moved
        for node in body.order:
            inside = body.inner.get(node)
            if inside is None:
                if any(v in active for v in valued(node)):
                    active.update(v for v in node.outputs if is_float(v))
            elif isinstance(inside, Loop):
                self.mark_loop(body, inside)
            else:
                self.mark(inside, {i for v, i in zip(node.inputs, inside.inputs) if v in active})
                active.update(v for v, o in zip(node.outputs, inside.outputs) if o in self.active[inside])

    def mark_loop(self, body, loop):
        active, layout = self.active[body], loop.layout
        moved = {i for v, i in [*layout.sequences, *layout.fixed] if v in active}
        moved.update(i for v, _, _, insides, _ in layout.recurrent if v in active for i in insides)
        before = None
        while before != moved:
            before = set(moved)
            self.mark(loop, moved)
            moved.update(i for *_, insides, out in layout.recurrent if out in self.active[loop] for i in insides)
        results = [*[(out, result) for _, out, _, _, result in layout.recurrent], *layout.collected]
        active.update(out for out, result in results if result in self.active[loop])

    def counts(self, body, node):
        """Whether an op is worth a look: it draws, or it computes a float from what is differentiated."""
        if self.is_draw(node):  # a copy that computes the generator's next state alone is none
            drawn = node.outputs[-1]
            return any(drawn in other.inputs for other in body.order) or drawn in body.outputs
        if not any(map(is_float, node.outputs)):
            return False
        if not any(v in self.active[body] for v in valued(node)):
            return False
        if self.is_users(node):
            return True
        names = lineage(node.op)
        prepares = "IncSubtensor" in names and "AllocEmpty" in lineage(getattr(node.inputs[0].owner, "op", None))
        return not (names & MOVERS or prepares)

    @staticmethod
    def is_draw(node):
        return bool(lineage(node.op) & DRAWS)

    def is_users(self, node):
        """Whether the user wrote the op's rule: an Op or scalar Op of their own, as_op, an OpFromGraph with overrides."""
        names = lineage(node.op)
        if names & {"FromFunctionOp", "OpFromGraph"}:
            return True
        ops = [node.op, getattr(node.op, "scalar_op", node.op)]
        return not all(is_library(type(op)) for op in ops)

    def kind(self, node):
        if node in self.machine.failures:
            return "opaque", self.machine.failures[node]
        if self.is_draw(node):
            return "draw", ""
        if self.is_users(node):
            return "custom", self.refusals(node)
        return ("stop" if lineage(node.op) & STOPS else "op"), self.refusals(node)

    def refusals(self, node):
        """Which inputs the op's own rule gives no gradient for, and why, in one line; "" if it does for all."""
        live = tuple(i for i, v in enumerate(node.outputs) if is_float(v))
        parts = tuple(repr(v.type) if not is_constant(v) else repr(v) for v in node.inputs)
        try:
            key = node.op, parts, live
            if key not in self.known_rules:
                self.known_rules[key] = self.refused(node, live)
            return self.known_rules[key]
        except Exception as error:
            return f"its reverse rule raises {type(error).__name__}: {error}".split("\n")[0]

    def refused(self, node, live):
        _, taken, _ = self.machine.rule(node, live)
        numbers = {v: list(node.inputs).index(v) for v in taken}
        given = {numbers[v]: why for v, (status, why) in taken.items() if status not in ("ok", "disconnected")}
        told = [f"no gradient for input {i}: {why}" for i, why in given.items()]
        return "; ".join(told)

    def nodes(self):
        described = []
        for sites in self.listed:
            node = sites[0][1]
            file, line = self.place(node)
            kind, why = self.kind(node)
            told = {"op": name(node.op), "file": file, "line": line, "column": 0, "text": "", "steps": len(sites)}
            if kind == "draw":
                told.update(op=sampling.called(self, node, name(node.op)), **sampling.of(self, sites[0][0], node))
            if kind == "stop":
                told.update(self.meanings.told(node))
            described.append({**told, "kind": kind, "why": why, "defined": self.defined(node)})
        return described

    @functools.cached_property
    def meanings(self):
        return stops.Meanings(self, name)

    @functools.cached_property
    def stopped(self):
        """What every stop returned at the model's own inputs, run by run."""
        machine = stops.Holding(self.machine)
        stops.run(machine, self, self.problem.arrays)
        return machine.noted

    def frozen(self, arrays):
        """The objectives at these inputs, with what every stop returned at the model's own."""
        env = stops.run(stops.Holding(self.machine, self.stopped), self, arrays)
        return [float(value_of(self.costs[o["name"]], env)) for o in self.problem.objectives]

    def place(self, node):
        """(file, line) of the user's own code that made the op, or ("", 0).

        A frame of `make_node` made the variable, not the op; above a frame of the harness there is no user.
        """
        for variable in node.outputs:
            for trace in getattr(variable.tag, "trace", None) or []:
                for file, line, function, _ in reversed(trace):
                    path = os.path.abspath(file)
                    if any(path.startswith(folder + os.sep) for folder in self.own):
                        continue
                    if os.path.dirname(path) in self.harness and os.path.basename(path) not in PASSED:
                        break
                    if function != "make_node" and os.path.dirname(path) not in self.harness:
                        if os.path.isfile(path):
                            return path, line
                        if file in linecache.cache:  # a notebook's cell: no file, but lines of the user's
                            return file, line
        return "", 0

    def defined(self, node):
        """ "file:line" of the reverse rule that a user wrote, "" if there is none."""
        if not self.is_users(node):
            return ""
        for op in (getattr(node.op, "scalar_op", node.op), node.op):
            for method in ("L_op", "grad"):
                code = getattr(vars(type(op)).get(method), "__code__", None)
                if code is not None and not is_library(type(op)):
                    return f"{os.path.abspath(code.co_filename)}:{code.co_firstlineno}"
        return ""

    # -- one op alone ------------------------------------------------------------------------------------------------

    def focus(self, number, step):
        """One op at its values at one step, or at the first, as a model of its own."""
        sites = self.listed[number]
        body, node, run = sites[step if step is not None and 0 <= step < len(sites) else 0]
        return Focus(self, node, body.env(run), [v for v in valued(node) if v in self.active[body]])

    # -- all ops, backward -------------------------------------------------------------------------------------------

    def reverse(self, objective, rule):
        """{input: cotangent} of one objective, on the values of the forward pass as it was; see Body.reverse."""
        cost = self.costs[objective]
        if value_of(cost, self.env) is Missing:
            raise ValueError("an op cannot be run alone: " + "; ".join(self.machine.failures.values()))
        found = self.body.reverse(0, {cost: np.ones((), dtype=cost.type.dtype)}, rule)
        return {name: found.get(variable) for name, variable in self.inputs.items()}

    def composed(self, open_stops=False, inside=(), mend=False, lost=(), objectives=None):
        """Every gradient as a composition of the ops' own rules: {objective: {input: (status, array or reason)}}.

        open_stops: stops are the identity. inside: numbers of ops whose rule is replaced by differences of the op's own forward.
        mend: what is not finite where the cotangent that arrives is 0 counts as 0. lost: numbers of parts (see parts) that hand
        nothing back. objectives: the names of those that are asked for, else all.
        """
        found = {}
        for o in self.problem.objectives:
            if objectives is None or o["name"] in objectives:
                mended = (lambda birth: birth["zero_cotangent"]) if mend else never
                back = self.reverse(
                    o["name"], Backward(self, open_stops, inside, mended, lost=[self.edges[k] for k in lost])
                )
                found[o["name"]] = {n: judged(back[n]) for n in o["wrt"]}
        return found

    @property
    def edges(self):
        """(number, position of an input) of all ops: the ways by which cotangents go back."""
        return [
            (number, list(node.inputs).index(v))
            for number, sites in enumerate(self.listed)
            for body, node, _ in sites[:1]
            for v in dict.fromkeys(valued(node))
            if v in self.active[body]
        ]

    def parts(self, inside=()):
        """These ways, told: the op, its line, which input, and the op that made that one. None is inside of another."""
        return [self.part(number, position) for number, position in self.edges]

    def part(self, number, position):
        def told(node):
            file, line = self.place(node)
            return {"op": name(node.op), "file": file, "line": line, "column": 0}

        node = self.listed[number][0][1]
        maker = node.inputs[position].owner
        return {**told(node), "input": position, "inner": False, "made": maker and told(maker)}

    def births(self):
        """Where values, of an objective, and cotangents first are not finite though what they are made of is.

        Of a cotangent: what arrives and leaves at the first such entry, and the select whose other side made it 0, if one did.
        """
        found = []
        for objective, cost in self.costs.items():
            value = value_of(cost, self.env)
            if value is Missing:
                continue
            born = self.backward_births(objective) if finite(value) else self.forward_birth(origin(self.body, cost, 0))
            found.extend({**birth, "objective": objective} for birth in born)
        return found

    def forward_birth(self, site):
        if site not in self.numbers:  # an input of the case, or an op that no differentiated input moves
            return []
        body, node, run = site
        env, (number, step) = body.env(run), self.numbers[site]
        result = next(value_of(v, env) for v in node.outputs if not finite(value_of(v, env)))
        spoilt = ~np.isfinite(result)
        same = [
            value_of(v, env)[spoilt] for v in node.inputs if is_float(v) and np.shape(value_of(v, env)) == result.shape
        ]
        entry = float(same[0][0]) if same else None
        return [{"node": number, "step": step, "where": "forward", "input": entry, "result": float(result[spoilt][0])}]

    def backward_births(self, objective):
        """Births under a mended pass, so that each is seen; selects are tried by leaking something to their other side."""
        plain = Backward(self, mend=always)
        self.reverse(objective, plain)
        zeros = {(b["node"], b["step"]) for b in plain.births if b["zero_cotangent"]}
        blamed = {}
        for select in list(plain.selects)[:SELECTS_TRIED] if zeros else ():
            for leak in (1.0, np.nan):  # what is put there: a number, or what no later product with 0 takes away
                leaking = Backward(self, mend=always, leak=(select, leak))
                self.reverse(objective, leaking)
                for birth in leaking.births:
                    if (birth["node"], birth["step"]) in zeros and not birth["zero_cotangent"]:
                        blamed.setdefault((birth["node"], birth["step"]), select)
        return [{**b, "select": blamed.get((b["node"], b["step"]))} for b in plain.births]


class Backward:
    """One reverse pass, op by op: the rule that Body.reverse asks for.

    mend: birth -> whether what is not finite there counts as 0. leak: (number of a select, the cotangent that its other side gets
    instead of 0), or None. lost: (number, position) of inputs that get nothing.
    After the pass: births, and selects, the numbers of those that handed zeros to a side.
    """

    def __init__(self, ops, open_stops=False, inside=(), mend=None, leak=None, lost=()):
        self.lost = set(lost)
        self.ops, self.open_stops, self.inside, self.leak = ops, open_stops, set(inside), leak
        self.mend = mend or never
        self.leaks_nan = leak is not None and bool(np.isnan(leak[1]))
        self.births, self.selects = [], {}

    def __call__(self, body, node, run, env, arrived):
        number, step = self.ops.numbers.get((body, node, run), (None, None))
        if self.open_stops and lineage(node.op) & STOPS:
            return {node.inputs[0]: arrived[node.outputs[0]]}
        moved = [v for v in dict.fromkeys(node.inputs) if v in self.ops.active[body]]
        if number is not None and number in self.inside:
            return by_differences(self.ops.machine, node, env, arrived, moved)
        back = {v: c for v, c in self.ops.machine.pull(node, env, arrived).items() if v in self.ops.active[body]}
        if name(node.op) in SELECTS and number is not None:
            back = {v: self.other_side(number, arrived[node.outputs[0]], c) for v, c in back.items()}
        leaks_here = self.leaks_nan and number == self.leak[0]
        if number is not None and not leaks_here and (self.leaks_nan or finite(*arrived.values())):
            for v, cotangent in back.items():
                if isinstance(cotangent, np.ndarray) and not finite(cotangent):
                    back[v] = self.born(number, step, arrived, env[v], cotangent)
        inputs = list(node.inputs)
        return {v: c for v, c in back.items() if not self.lost or (number, inputs.index(v)) not in self.lost}

    def other_side(self, number, arriving, leaving):
        """What a select hands to one side; with the leak, something also where the other side was taken."""
        if not isinstance(leaving, np.ndarray) or np.shape(leaving) != np.shape(arriving):
            return leaving
        left_out = (leaving == 0) & (arriving != 0)
        if not left_out.any():
            return leaving
        self.selects[number] = True
        if self.leak is None or number != self.leak[0]:
            return leaving
        return np.where(left_out, np.asarray(self.leak[1], dtype=leaving.dtype), leaving)

    def born(self, number, step, arrived, value, cotangent):
        """Note the birth and give the cotangent back, mended if that is wanted."""
        spoilt = ~np.isfinite(cotangent)
        there = np.concatenate([c[spoilt] if c.shape == cotangent.shape else c.reshape(-1) for c in arrived.values()])
        birth = {
            "node": number,
            "step": step,
            "where": "backward",
            "zero_cotangent": not there.any(),
            "input": float(np.asarray(value)[spoilt][0]),
            "cotangent": float(there[0]) if there.size else 0.0,
            "result": float(cotangent[spoilt][0]),
        }
        self.births.append(birth)
        if self.leaks_nan:  # what was leaked goes on
            leaked = [np.isnan(c) for c in arrived.values() if c.shape == cotangent.shape]
            spoilt = spoilt & ~np.logical_or.reduce(leaked) if leaked else np.zeros_like(spoilt)
        return np.where(spoilt, np.zeros_like(cotangent), cotangent) if self.mend(birth) else cotangent


def always(birth):
    return True


def never(birth):
    return False


def by_differences(machine, node, env, arrived, moved):
    """{input: cotangent} from differences of the op's forward, entry by entry: a five-point stencil, right to about 1e-10.

    Raises ValueError where that would take more than EVALUATIONS runs of the op.
    """
    values = [value_of(v, env) for v in node.inputs]
    if 4 * sum(np.size(value_of(v, env)) for v in moved) > EVALUATIONS:
        raise ValueError(f"{name(node.op)} has too many inputs to be differenced one by one")

    def value(variable, entry, offset):
        shifted = np.array(value_of(variable, env), dtype=variable.type.dtype)
        shifted.reshape(-1)[entry] += offset
        outputs = machine.execute(node, [shifted if v is variable else x for v, x in zip(node.inputs, values)])
        return sum(float(np.vdot(c, x)) for v, x in zip(node.outputs, outputs) if (c := arrived.get(v)) is not None)

    found = {}
    for variable in moved:
        array = np.asarray(value_of(variable, env))
        size = float(np.sqrt(np.mean(np.square(array)))) or 1.0
        steps = (1e-3 if array.dtype == np.float64 else 3e-2) * np.clip(np.abs(array), 0.05 * size, size).reshape(-1)
        slopes = [
            (
                8 * (value(variable, i, h) - value(variable, i, -h))
                - value(variable, i, 2 * h)
                + value(variable, i, -2 * h)
            )
            / (12 * h)
            for i, h in enumerate(steps)
        ]
        found[variable] = np.reshape(slopes, array.shape).astype(array.dtype)
    return found


class Focus:
    """One op at its values of one run, as a model: inputs "input k", objectives "output k", each a dot with a fixed cotangent."""

    def __init__(self, ops, node, env, moved):
        self.machine, self.node = ops.machine, node
        self.fixed = {v: value_of(v, env) for v in node.inputs}
        self.inputs = {f"input {list(node.inputs).index(v)}": v for v in dict.fromkeys(moved)}
        outputs = [value_of(v, env) for v in node.outputs]
        self.given = [self.fixed[v] for v in node.inputs]
        if any(value is Missing for value in [*self.fixed.values(), *outputs]):
            raise ValueError(ops.machine.failures.get(node, "the op's inputs could not be computed alone"))
        self.outputs = {f"output {i}": i for i, v in enumerate(node.outputs) if is_float(v)}
        self.cotangents = {name: cotangent(i, outputs[i]) for name, i in self.outputs.items()}
        self.finite_in, self.finite_out = finite(*self.fixed.values()), finite(*outputs)
        self.problem = SimpleNamespace(
            arrays={name: np.array(self.fixed[v]) for name, v in self.inputs.items()},
            objectives=[{"name": name, "wrt": list(self.inputs)} for name in self.outputs],
            dtype=str(next(iter(self.cotangents.values())).dtype),
        )

    def execute(self, arrays):
        env = dict(self.fixed)
        env.update((v, np.asarray(arrays[name])) for name, v in self.inputs.items())
        env.update(zip(self.node.outputs, self.machine.execute(self.node, [env[v] for v in self.node.inputs])))
        return env

    def values(self, arrays):
        env = self.execute(arrays)
        terms = [
            np.asarray(env[self.node.outputs[i]], dtype=np.float64) * self.cotangents[name]
            for name, i in self.outputs.items()
        ]
        return [[float(t.sum()) for t in terms], [float(np.abs(t).sum()) for t in terms]]

    def gradients(self, arrays, cotangent=1.0):
        """As a case's; cotangent: what those of the objectives are multiplied by."""
        env, found = self.execute(arrays), {}
        for name, i in self.outputs.items():
            arriving = np.asarray(self.cotangents[name] * cotangent, dtype=self.cotangents[name].dtype)
            back = self.machine.pull(self.node, env, {self.node.outputs[i]: arriving})
            found[name] = {given: judged(back.get(v)) for given, v in self.inputs.items()}
        return found


def cotangent(number, output):
    """The fixed random cotangent of an output."""
    return directions.expand(number + 1, 0, np.size(output)).reshape(np.shape(output)).astype(output.dtype)


def judged(cotangent):
    if cotangent is None:
        return "disconnected", "the framework found no path"
    return (cotangent.status, cotangent.why) if isinstance(cotangent, Null) else ("ok", cotangent)


def valued(node):
    """The inputs whose values matter: `second`, also called fill, takes the shape of its first one alone."""
    return node.inputs[1:] if name(node.op) == "second" else node.inputs


def age(node):
    """The order in which variables were made: that of the steps, in an unrolled loop."""
    return int(str(getattr(node.outputs[0], "auto_name", "auto_0")).partition("_")[2] or 0)


def is_library(kind):
    """Whether a class is one of the framework's own."""
    return kind.__module__.partition(".")[0] in FRAMEWORKS


def name(op):
    """An op's name as its users know it: the framework's own as functions (disconnected_grad), theirs as they are."""
    given = getattr(op, "scalar_op", op)
    if "FromFunctionOp" in lineage(given):
        return str(given).partition("{")[2][:-1]
    if isinstance(getattr(given, "name", None), str) and given.name and "IfElse" not in lineage(given):
        return given.name
    kind = type(given)
    if not is_library(kind):
        return kind.__name__
    if isinstance(getattr(given, "set_instead_of_inc", None), bool):  # of one or several indices, advanced or not
        return "set_subtensor" if given.set_instead_of_inc else "inc_subtensor"
    return NAMES.get(kind.__name__) or re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()

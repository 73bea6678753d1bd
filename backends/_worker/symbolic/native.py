"""Native models of Theano and PyTensor: a `scan` in its own arguments, or any graph's costs.

Runs inside a backend's interpreter: Python >= 3.9, numpy, and the framework that is handed in (see the package).

Shared variables, inputs and expressions that a gradient is asked for become plain inputs of one graph, as those of a portable
case are: nothing of the user's is moved or set. No update is ever applied, so every evaluation draws the same.
"""

import functools

import numpy as np
from gradcheck_worker.native import check_scalar, unique
from gradcheck_worker.problem import StepError, quoted

from . import draws as draws_module
from . import model, redraw, remake, words
from .tape import inner_inputs, inner_outputs, is_constant, lineage, toposort

COARSE = ("float16", "float32")  # from the lowest
SCAN = {"scan": True, "objectives": True, "wrt": True, "inputs": False}
COSTS = {"costs": True, "wrt": True, "inputs": False, "updates": False}


def prepare(problem, framework):
    """The model; None, with the reason in problem.one_rollout, if it has no loop that can be unrolled."""
    built = problem.build((SCAN, COSTS))
    if problem.rollout == "unroll" and "scan" not in built:
        problem.one_rollout = f"`costs` are a whole graph: it is checked as it is, on {framework.GROUP}-scan"
        return None
    loop = Loop(framework, built["scan"], given_inputs(built)) if "scan" in built else None
    if problem.rollout == "unroll" and loop.ends_early():
        problem.one_rollout = "a scan that ends by `until` has no fixed number of steps to unroll"
        return None
    return Model(problem, framework, built, loop)


def form_of(built):
    """A model as `gradcheck.check` is given it, {"loss", "params", "args"} or a native form, in the native form."""
    if "loss" not in built:
        return built
    costs, given = built["loss"], built.get("args", ())
    if len(given) > 1 or not all(isinstance(inputs, dict) for inputs in given):
        raise TypeError("after the cost and the parameters comes one {variable: array} for the graph's free inputs")
    costs = costs if isinstance(costs, dict) else {costs.name or "loss": costs}
    return {"costs": costs, "wrt": built["params"], "inputs": dict(*given)}


def given_inputs(built):
    """{variable: array} of the graph's own free inputs."""
    given = built.get("inputs", {})
    if not isinstance(given, dict):
        raise StepError(f"'inputs' is {type(given).__name__}, not a dict of variable: array")
    return {variable: variable.type.filter(value, allow_downcast=True) for variable, value in given.items()}


class Model(model.Model):
    """One native model: `costs` and `inputs` are all that differs from a portable case."""

    def __init__(self, problem, framework, built, loop):
        self.problem, self.framework, self.built, self.loop = problem, framework, built, loop
        self.given = given_inputs(built)
        if loop is not None:
            problem.steps = loop.steps
            cut = loop.spec["truncate_gradient"] = problem.options.get(
                "truncate_gradient", loop.spec.get("truncate_gradient", -1)
            )
            problem.told = {"truncate_gradient": cut} if cut != -1 else {}
        objectives = list(dict_of(built, "costs" if loop is None else "objectives"))
        variables, wrt = self.parameters(objectives)
        problem.declare({name: self.value(variable) for name, variable in variables.items()}, wrt)
        self.variables = {name: variables[name] for name in problem.arrays}
        self.inputs = {name: variable.type(name) for name, variable in self.variables.items()}
        costs = self.costs_of()
        self.costs = self.closed(costs)
        problem.draws = any(map(draws, scans(self.costs.values())))
        problem.shared_draws = redraw.looks_shared(list(self.costs.values()))
        captured = {v: v for v in self.variables.values() if v.owner is not None}
        # what the step reads from around it is copied into the scan: differences have to move it there, too
        outputs, self.copies = handed(framework, list(costs.values()), captured)
        self.handed = self.closed(dict(zip(costs, outputs))) if self.copies else self.costs
        moving = self.handed
        moving = list(moving.values())
        problem.settle([Shape(cost) for cost in moving])
        found = list(self.handed.values())
        problem.coarsest = lowest(found, set())[0]
        derived = set(self.inputs.values())
        self.precision = lowest(found, derived)[1]
        self.forward = self.compile(moving + [abs(cost) for cost in moving])
        self.reverse = self.recorded = None

    def costs_of(self):
        """{objective: scalar variable} of those that are asked about."""
        if self.loop is None:
            found = self.built["costs"]
        else:
            inside = {v: self.stand_ins[v] for v in self.variables.values() if v.owner is not None}
            scanned = self.problem.rollout == "scan"
            outputs = self.loop.scanned() if scanned else self.loop.unrolled(inside)
            found = {name: objective(*outputs) for name, objective in self.built["objectives"].items()}
        costs = {}
        for o in self.problem.objectives:
            cost = costs[o["name"]] = self.framework.tensor.as_tensor_variable(found[o["name"]])
            check_scalar(o["name"], ("?",) * cost.ndim, cost.dtype)
        return costs

    def parameters(self, objectives):
        """({name: variable}, {objective: names}): named as their owners did, or by position where they did not."""
        wrt = self.built["wrt"]
        by_objective = dict(wrt) if isinstance(wrt, dict) else dict.fromkeys(objectives, wrt)
        if strangers := [name for name in by_objective if name not in objectives]:
            raise StepError(f"'wrt' names {quoted(strangers)}, which is no objective; there is {quoted(objectives)}")
        by_objective = {o: list(v) if isinstance(v, (list, tuple)) else [v] for o, v in by_objective.items()}
        every = list(dict.fromkeys(v for variables in by_objective.values() for v in variables))
        for variable in every:
            if not hasattr(variable, "type") or not hasattr(variable.type, "broadcastable"):
                raise StepError(f"'wrt' holds {type(variable).__name__}, not shared variables or tensor expressions")
        named = unique((variable.name or f"#{k}", variable) for k, variable in enumerate(every))
        names = {variable: name for name, variable in named.items()}
        return named, {o: [names[v] for v in variables] for o, variables in by_objective.items()}

    def value(self, variable):
        """The value of a parameter: a shared variable's, an input's, or what an expression amounts to."""
        if hasattr(variable, "get_value"):
            return np.asarray(variable.get_value(borrow=False))
        if variable in self.given:
            return np.asarray(self.given[variable])
        return np.asarray(evaluated(self.framework, [variable], self.given)[0])

    @functools.cached_property
    def stand_ins(self):
        """{variable of the user's: what it is in the graph that is checked}: our inputs, and constants for other inputs.

        An expression of other parameters moves with them, as it does for the framework, and by itself.
        """
        clone, ancestors = self.framework.clone, self.framework.ancestors
        moved = {variable: self.inputs[name] for name, variable in self.variables.items()}
        fixed = {v: v.type.make_constant(value) for v, value in self.given.items() if v not in moved}
        found = {**fixed, **moved}
        made_of = {v: set(ancestors(v.owner.inputs)) for v in moved if v.owner is not None}
        for name, v in sorted(self.variables.items(), key=lambda item: len(made_of.get(item[1], ()))):
            if made_of.get(v, set()) & set(moved):
                offset = self.inputs[name] - v.type.make_constant(self.problem.arrays[name])
                found[v] = clone(v, replace={k: other for k, other in found.items() if k is not v}) + offset
        return found

    def closed(self, named):
        """The named costs over self.inputs, the other inputs as constants. Raises StepError for an input without value."""
        framework = self.framework
        costs = framework.clone(list(named.values()), replace=self.stand_ins)
        free = [
            v
            for v in framework.graph_inputs(costs)
            if not isinstance(v, framework.Constant) and not hasattr(v, "get_value") and v not in self.inputs.values()
        ]
        if free:
            raise StepError(f"the model needs a value for {quoted(free)}: give it as {{variable: array}} in 'inputs'")
        return dict(zip(named, costs))

    def call(self, function, arrays, *more):
        """As of a portable case, but for a model whose precision need not be that of floatX."""
        more = (np.asarray(m, dtype=self.problem.dtype) if isinstance(m, (float, np.floating)) else m for m in more)
        return super().call(function, arrays, *more)

    def explain_loops(self):
        """{"truncated": [{file, line, kept, steps}], "copies": [{input, file, line, expression, sources}]} of the scans, with
        their lines. expression: the place of what is copied; sources: the names of what it is made of.
        """
        return {"truncated": list(truncated(self.ops)), "copies": [self.told_copy(*found) for found in self.copies]}

    def told_copy(self, scan, expression):

        name = next(n for n, v in self.variables.items() if v is expression)
        given = self.framework.graph_inputs([expression])
        sources = [v.name for v in given if not isinstance(v, self.framework.Constant) and v.name]
        placed = {"expression": draws_module.placed(self.ops, expression.owner), **draws_module.placed(self.ops, scan)}
        return {"input": name, "sources": sorted(set(sources)), **placed}

    def with_loops(self, whole=False, handed=False):
        """As `gradients`, with the scans made again. whole: without truncation; handed: their copies as inputs."""
        costs = list((self.handed if handed else self.costs).values())
        costs = dict(zip(self.costs, remake.whole(self.framework, costs) if whole else costs))
        taken = {o["name"]: self.differentiate(o, costs[o["name"]]) for o in self.problem.objectives}
        return self.evaluated(taken, self.problem.arrays, 1.0)

    def draws(self):
        raise StepError("the draws of a native model are its own")


class Shape:
    """What `settle` asks of a value, told by a variable."""

    def __init__(self, variable):
        self.shape, self.dtype = ("?",) * variable.ndim, variable.dtype


class Loop:
    """The arguments of a `scan`, and the same step in a Python loop."""

    def __init__(self, framework, spec, given):
        self.framework = framework
        if not isinstance(spec, dict) or not callable(spec.get("fn")):
            raise StepError(f"'scan' is a dict of {framework.GROUP}.scan's own arguments, with the step as 'fn'")
        self.spec, self.given = dict(spec), given
        self.sequences = [self.taps_of(s, "input", [0]) for s in listed(spec.get("sequences"))]
        self.carries = [
            None if info is None or info == {} else self.taps_of(info, "initial", [-1])
            for info in listed(spec.get("outputs_info"))
        ]
        self.backwards = bool(spec.get("go_backwards", False))
        lengths = evaluated(framework, [v.shape[0] for v, _ in self.sequences], given)
        self.lengths = [int(n) - max([*t, 0]) + min([*t, 0]) for n, (_, t) in zip(lengths, self.sequences)]
        asked = spec.get("n_steps")
        if asked is None and not self.lengths:
            raise StepError("the scan has neither sequences nor n_steps: the number of steps is not known")
        self.steps = min(self.lengths) if asked is None else int(evaluated(framework, [self.variable(asked)], given)[0])
        if self.steps < 1:
            raise StepError(f"the scan has {self.steps} steps")

    def scanned(self):
        """The outputs over all steps, by the framework's scan."""
        return self.framework.scan(**self.spec)

    @functools.cached_property
    def traced(self):
        """Of one call (another makes other generators): placeholders of sequences and carries, outputs, updates, condition."""
        sequences = [[variable[0].type() for _ in taps] for variable, taps in self.sequences]
        carries = [
            [] if info is None else [(info[0] if info[1] == [-1] else info[0][0]).type() for _ in info[1]]
            for info in self.carries
        ]
        fixed = [self.variable(v) for v in listed(self.spec.get("non_sequences"))]
        flat = [v for group in sequences + carries for v in group]
        condition, outputs, updates = self.framework.step_of(self.spec["fn"], flat, fixed)
        return sequences, carries, outputs, updates, condition

    def ends_early(self):
        return self.traced[4] is not None

    def unrolled(self, inside):
        """The step's graph, copied once a step: states of generators are threaded through, so the draws are the scan's.

        inside: {expression: variable} of what the step reads from around it and a gradient is asked for.
        """
        framework = self.framework
        sequences, carries, outputs, updates, _ = self.traced
        histories = [
            [] if info is None else [info[0]] if info[1] == [-1] else [info[0][k] for k in range(-min(info[1]))]
            for info in self.carries
        ] or [[] for _ in outputs]
        starts = [len(history) for history in histories]
        states = {variable: variable for variable in updates}
        for t in range(self.steps):
            now = {}
            for (variable, taps), length, inner in zip(self.sequences, self.lengths, sequences):
                row = length - 1 - t if self.backwards else t
                now.update((p, variable[k - min([*taps, 0]) + row]) for k, p in zip(taps, inner))
            for info, history, start, inner in zip(self.carries, histories, starts, carries):
                taps = info[1] if info is not None else []
                now.update((p, framework.like(history[start + t + k], p)) for k, p in zip(taps, inner))
            found = copied([*outputs, *updates.values()], {**inside, **now, **states})
            for history, value in zip(histories, found):
                history.append(value)
            states = dict(zip(updates, found[len(outputs) :]))
        rows = [history[start:] for history, start in zip(histories, starts)]
        return [framework.tensor.stack(row) if is_tensor(row[-1]) else row[-1] for row in rows]

    def taps_of(self, given, key, usual):
        """(variable, taps) of a sequence or an output, plain or in a dict."""
        if isinstance(given, dict):
            taps = given.get("taps")
            return self.variable(given[key]), usual if taps is None else listed(taps)
        return self.variable(given), usual

    def variable(self, value):
        """As a tensor, but for what is none: the state of a generator may be a carry, or passed in."""
        is_state = hasattr(value, "type") and not is_tensor(value)
        return value if is_state else self.framework.tensor.as_tensor_variable(value)


def handed(framework, costs, captured):
    """(costs, copies) of remake.handed; nothing is a copy where a scan cannot be made again: it is judged as it is."""
    try:
        return remake.handed(framework, costs, captured) if captured else (costs, [])
    except Exception:  # of whatever kind of scan
        return costs, []


def dict_of(built, key):
    """`costs` or `objectives`, checked."""
    found = built[key]
    functions = key == "objectives"
    if not isinstance(found, dict) or not found or not all(not functions or callable(v) for v in found.values()):
        what = "function of the scan's outputs that gives a scalar" if functions else "scalar variable"
        raise StepError(f"{key!r} has to be a dict of name: {what}")
    return found


def listed(value):
    """What a scan takes as a list or as a single thing, as a list."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def copied(outputs, replace):
    """The outputs with variables replaced. A framework's own clone copies the replacements too: all steps before."""
    new = dict(replace)
    for node in toposort(outputs, new):
        new.update(zip(node.outputs, node.clone_with_new_inputs([new.get(v, v) for v in node.inputs]).outputs))
    return [new.get(v, v) for v in outputs]


def is_tensor(variable):
    return hasattr(variable.type, "ndim")


def evaluated(framework, expressions, given):
    """Their values; no update of any generator is applied."""
    function = framework.function([], expressions, givens=given, on_unused_input="ignore", no_default_updates=True)
    with words.in_few(framework):
        return function()


def truncated(ops):
    """Scans whose backward pass keeps fewer steps than they ran."""
    for loop in draws_module.loops(ops.body):
        kept, (start, stop) = loop.node.op.truncate_gradient, loop.spans[0]
        if 0 < kept < stop - start:
            yield {**draws_module.placed(ops, loop.node), "kept": int(kept), "steps": stop - start}


def lowest(outputs, derived):
    """(the lowest float type that a graph computes in, that of what derives from `derived`), which is added to.

    Of a loop's step, what derives from any of its inputs. A constant that is given more dimensions is not computed.
    """
    whole = on_the_way = "float64"
    for node in toposort(list(outputs)):
        moves = any(v in derived for v in node.inputs)
        found = [str(getattr(v, "dtype", "")) for v in node.outputs]
        if hasattr(node.op, "truncate_gradient"):
            found.extend(lowest(inner_outputs(node.op), set(inner_inputs(node.op)))[1:])
        elif "DimShuffle" in lineage(node.op) and is_constant(node.inputs[0]):
            continue
        for dtype in found:
            whole = coarser(whole, dtype)
            on_the_way = coarser(on_the_way, dtype) if moves else on_the_way
        derived.update(node.outputs if moves else ())
    return whole, on_the_way


def coarser(one, other):
    """The lower of two types; what is no float is none."""
    return other if other in COARSE and (one not in COARSE or COARSE.index(other) < COARSE.index(one)) else one


def scans(costs):
    """The Scan nodes under some costs."""
    return [node for node in toposort(list(costs)) if "Scan" in lineage(node.op)]


def draws(scan):
    """Whether a scan's step makes random draws from a generator's state, which is no tensor; one inside of it included."""
    inside = toposort(inner_outputs(scan.op))
    return any("RandomVariable" in lineage(n.op) for n in inside) or any(map(draws, scans(inner_outputs(scan.op))))

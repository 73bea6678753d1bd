"""Theano: `theano.scan`, or the same step in a Python loop.

Runs inside a backend's interpreter: Python >= 3.9, numpy, Theano-PyMC. Mode, linker and floatX hold for the whole process:
Theano caches the default mode and hands it to scan's inner function, so they are set before the import and never changed.
"""

import contextlib
import os
from collections import OrderedDict

import numpy as np


def start(settings):
    """Import Theano. settings: mode, linker, dtype, cache (a folder for its compiled code)."""
    flags = {
        "blas__ldflags": "",  # found by a compiler run that fails on most machines; Python code uses NumPy's own
        "floatX": settings["dtype"],
        "base_compiledir": settings["cache"],
        "traceback__limit": "12",  # so that a variable knows the line of the user's file that made it
        "mode": settings["mode"],
    }
    if settings["linker"] == "py":
        flags["cxx"] = ""
    given = os.environ.get("THEANO_FLAGS", "")
    os.environ["THEANO_FLAGS"] = ",".join(filter(None, [given] + ["{}={}".format(*item) for item in flags.items()]))
    import theano
    import theano.compile.mode as modes
    from gradcheck_worker import tensor_xp

    if settings["linker"] != "py":
        if not theano.config.cxx:
            raise RuntimeError("the linker {!r} needs a C++ compiler and there is none".format(settings["linker"]))
        optimizer = modes.predefined_modes[settings["mode"]].provided_optimizer
        modes.predefined_modes[settings["mode"]] = modes.Mode(settings["linker"], optimizer)
    tensor_xp.install_operators(theano.tensor)
    return {"framework_version": theano.__version__}


def prepare(problem):
    return Model(problem)


def prepare_native(problem):
    from . import native

    return native.prepare(problem)


@contextlib.contextmanager
def in_process(built):
    """Around a check in the user's own process: (the model in native form, the process's floatX).

    Nothing is set: graphs are compiled in the mode that the process has, and no update is applied.
    """
    import theano

    if "loss" in built:
        costs, given = built["loss"], built.get("args", ())
        if len(given) > 1 or not all(isinstance(inputs, dict) for inputs in given):
            raise TypeError("after the cost and the parameters comes one {variable: array} for the graph's free inputs")
        costs = costs if isinstance(costs, dict) else {costs.name or "loss": costs}
        built = {"costs": costs, "wrt": built["params"], "inputs": dict(*given)}
    yield built, theano.config.floatX


def prepare_second(problem):
    return SecondOrder(problem)


class Model:
    """One case under one rollout, as a symbolic graph: inputs are variables, so nothing is rebuilt when a point moves."""

    pushforward = sampler = None  # compiled where they are asked for

    def __init__(self, problem):
        from . import xp

        self.problem = problem
        self.xp = xp.namespace(problem.dtype)
        self.inputs = {name: variable(name, problem.arrays[name]) for name in problem.differentiable}
        self.constants = {name: constant(name, problem.arrays[name]) for name in problem.constants}
        self.shapes = self.shapes_of_one_step()
        history, self.draw_variables = self.rollout(self.xp)
        pairs = self.objectives(history)
        self.costs = {o["name"]: value for o, (value, _) in zip(problem.objectives, pairs)}
        self.forward = self.compile([v for v, _ in pairs] + [m for _, m in pairs])
        self.reverse = self.recorded = None

    def objectives(self, history):
        """[(objective, magnitude)] in the case's order. history: name -> [steps, ...] variable."""
        task = self.problem
        return [task.reduce(self.xp, o, history[o["of"]], self.shapes[o["of"]]) for o in task.objectives]

    def compile(self, outputs, *more_inputs):
        """A function of the inputs, in their order, and of further ones. No updates, not even a generator's default one: its
        shared state never advances, so every call starts from the same.
        """
        import theano
        from gradcheck_worker.problem import StepError

        try:
            return theano.function(
                [*self.inputs.values(), *more_inputs], outputs, on_unused_input="ignore", no_default_updates=True
            )
        except Exception as error:
            if theano.config.cxx and (isinstance(error, NotImplementedError) or "ompilation failed" in str(error)):
                raise StepError(no_code(error)) from error
            raise

    def call(self, function, arrays, *more):
        from . import words

        with words.in_few():
            return function(*[arrays[name] for name in self.inputs], *more)

    def generator(self):
        from theano.tensor.random.utils import RandomStream

        return RandomStream(seed=self.problem.draw_seed)

    def noise(self, stream):
        """The draws of one step, by the stream: name -> variable."""
        draw = {"normal": stream.normal, "uniform": stream.uniform}
        return {n["name"]: draw[n["draw"]](size=tuple(n["shape"])) for n in self.problem.in_step}

    def one_step(self, sequences, carries, draws):
        task = self.problem
        fixed = {name: self.inputs[name] for name in task.shared + task.parameters}
        return task.step(self.xp, dict(fixed, **self.constants, **sequences, **carries, **draws))

    def shapes_of_one_step(self):
        """Shapes of what the step returns, from running it once; carries are checked on the way."""
        task = self.problem
        first = {name: self.inputs[name][0] for name in task.sequences}
        carries, outputs = self.one_step(
            first, {name: self.inputs[name] for name in task.carries}, self.noise(self.generator())
        )
        named = {**carries, **outputs}
        tensors = {name: self.as_tensor(name, value) for name, value in named.items()}
        for name in carries:
            if tensors[name].ndim != task.arrays[name].ndim:
                task.check_carry(name, ("?",) * tensors[name].ndim, tensors[name].dtype)
        values = self.call(self.compile(list(tensors.values())), task.arrays)
        for name, value in zip(tensors, values):
            if name in carries:
                task.check_carry(name, np.shape(value), value.dtype)
        return {name: np.shape(value) for name, value in zip(tensors, values)}

    def as_tensor(self, name, value):
        import theano.tensor as tt
        from gradcheck_worker.problem import StepError

        try:
            return tt.as_tensor_variable(value)
        except Exception as error:
            raise StepError(f"the step returned {name!r} as {type(value).__name__}, which is no tensor") from error

    def rollout(self, xp, record_draws=False):
        """(name -> [steps, ...] variable of all that the step returns, the draws' variables).

        The scan has exactly the outputs that the step returns: adding one (a recorded draw) changes which gradients are right.
        """
        return (self.scan if self.problem.rollout == "scan" else self.unroll)(record_draws)

    def scan(self, record_draws):
        import theano
        import theano.tensor as tt

        task = self.problem
        stream, order, drawn = self.generator(), [], {}
        fixed = [self.inputs[name] for name in task.shared + task.parameters] + list(self.constants.values())

        def body(*values):
            values = iter(values)
            sequences = {name: next(values) for name in task.sequences}
            carries = {name: next(values) for name in task.carries}
            inner = dict(zip(task.shared + task.parameters + list(self.constants), values))
            draws = self.noise(stream)
            drawn.update(draws)
            after, outputs = task.step(self.xp, dict(inner, **sequences, **carries, **draws))
            after = {name: like(value, self.inputs[name]) for name, value in after.items()}
            outputs = {name: tt.as_tensor_variable(value) for name, value in outputs.items()}
            if record_draws:
                outputs.update({"draw:" + name: value for name, value in draws.items()})
            order[:] = list(after) + list(outputs)
            return list(after.values()) + list(outputs.values())

        results, _ = theano.scan(
            body,
            sequences=[self.inputs[name] for name in task.sequences],
            outputs_info=[self.inputs[name] for name in task.carries] + [None] * self.number_of_outputs(record_draws),
            non_sequences=fixed,
            n_steps=task.steps,
            truncate_gradient=task.options.get("truncate_gradient", -1),
            return_list=True,
        )
        return dict(zip(order, results)), drawn

    def number_of_outputs(self, record_draws):
        return len(self.shapes) - len(self.problem.carries) + (len(self.problem.in_step) if record_draws else 0)

    def unroll(self, record_draws):
        """One generator variable per draw, threaded through the steps: bit-equal to the scan's draws."""
        import theano.tensor as tt

        task = self.problem
        draws = self.noise(self.generator())
        carries = {name: self.inputs[name] for name in task.carries}
        history = {}
        for t in range(task.steps):
            if t:
                draws = {name: next_draw(value) for name, value in draws.items()}
            after, outputs = self.one_step({name: self.inputs[name][t] for name in task.sequences}, carries, draws)
            carries = {name: like(value, self.inputs[name]) for name, value in after.items()}
            recorded = {"draw:" + name: value for name, value in draws.items()} if record_draws else {}
            for name, value in {**carries, **outputs, **recorded}.items():
                history.setdefault(name, []).append(value)
        return {name: tt.stack(values) for name, values in history.items()}, draws

    def values(self, arrays):
        results = self.call(self.forward, arrays)
        half = len(results) // 2
        return [results[:half], results[half:]]

    def gradients(self, arrays, cotangent=1.0):
        """{objective: {input: (status, array or reason)}}; one function per objective, as a user would compile them."""
        if self.reverse is None:
            self.reverse = {o["name"]: self.differentiate(o) for o in self.problem.objectives}
        return self.evaluated(self.reverse, arrays, cotangent)

    def evaluated(self, taken, arrays, cotangent):
        """{objective: {input: (status, array or reason)}} of what `differentiate` gave for each objective."""
        from gradcheck_worker.problem import StepError

        results = {}
        for name, (function, gradients) in taken.items():
            try:
                arrived = [("ok", array) for array in (self.call(function, arrays, cotangent) if function else ())]
            except StepError as error:  # the forward runs: a reverse rule does not
                arrived = [("refused", str(error))] * len(gradients)
            given = iter(arrived)
            results[name] = {n: next(given) if status == "ok" else (status, g) for n, (status, g) in gradients.items()}
        return results

    def differentiate(self, objective, cost=None):
        """(compiled function of the gradients that exist or None, {input: (status, variable or reason)}). cost: another one."""
        import theano.tensor as tt

        cost = self.costs[objective["name"]] if cost is None else cost
        cotangent = tt.scalar("cotangent", dtype=self.problem.dtype)
        gradients = symbolic_gradients(cost, {n: self.inputs[n] for n in objective["wrt"]}, cotangent)
        there = [g for status, g in gradients.values() if status == "ok"]
        return (self.compile(there, cotangent) if there else None), gradients

    def tangents(self, arrays, tangents):
        """Forward-mode derivatives of every objective along the tangents, by the ops' R_op. The other inputs' are zeros."""
        from theano.gradient import DisconnectedInputError, Rop

        moved = {name: self.inputs[name] for name in self.problem.wrt}
        if self.pushforward is None:
            along = [variable("tangent_" + name, arrays[name]) for name in moved]
            try:
                ends = Rop(list(self.costs.values()), list(moved.values()), along, disconnected_outputs="ignore")
            except DisconnectedInputError as error:  # its own words are a stack
                raise ValueError("the framework finds no path from an input to the objectives") from error
            self.pushforward = self.compile(ends, *along)
        still = {name: np.zeros_like(arrays[name]) for name in moved}
        given = [np.asarray(tangents.get(name, zeros), zeros.dtype) for name, zeros in still.items()]
        return self.call(self.pushforward, arrays, *given)

    def draws(self):
        history, _ = self.rollout(self.xp, record_draws=True)
        names = [n["name"] for n in self.problem.in_step]
        return dict(
            zip(names, self.call(self.compile([history["draw:" + name] for name in names]), self.problem.arrays))
        )

    def redrawn(self, arrays, seeds):
        """[[objectives] for each seed] under other draws; None if there are none."""
        from . import redraw

        if self.sampler is None:
            self.sampler = redraw.function(list(self.costs.values()), list(self.inputs.values()), self.compile) or ()
        if not self.sampler:
            return None
        states, function = self.sampler
        seeded = ([redraw.state(v, seed, k) for k, v in enumerate(states)] for seed in seeds)
        return [[float(value) for value in self.call(function, arrays, *others)] for others in seeded]

    # -- for diagnosis: the ops one by one ---------------------------------------------------------------------------

    @property
    def ops(self):
        """The graph, recorded node by node at the case's own inputs; its values must be those of the compiled function."""
        if self.recorded is None:
            import gradcheck_worker
            import theano
            from theano.graph.basic import equal_computations

            from . import nodes, tape

            theirs = [os.path.dirname(os.path.abspath(m.__file__)) for m in (theano, np)]
            ours = [os.path.dirname(os.path.abspath(file)) for file in (gradcheck_worker.__file__, __file__)]
            machine = tape.Machine(rule_of, equal_computations)
            recorded = nodes.Ops(machine, self.problem, self.costs, self.inputs, theirs, ours)
            values, magnitudes = self.values(self.problem.arrays)
            agree = {"float64": 1e-9, "float32": 1e-4}[self.problem.dtype]
            for (name, alone), value, size in zip(recorded.values().items(), values, magnitudes):
                if isinstance(alone, np.ndarray) and abs(alone - value) > agree * size:
                    raise RuntimeError(
                        f"run op by op, {name} is {alone}, and {value} when compiled: the ops tell nothing"
                    )
            self.recorded = recorded
        return self.recorded

    def nodes(self):
        return self.ops.nodes()

    def focus(self, node, step):
        return self.ops.focus(node, step)

    def births(self):
        return self.ops.births()

    def parts(self, inside=()):
        return self.ops.parts(inside)

    def frozen(self, arrays):
        return self.ops.frozen(arrays)

    def composed(self, **changes):
        return self.ops.composed(**changes)

    def explain_draws(self):
        from . import draws

        return draws.explain(self.ops)


class SecondOrder(Model):
    """The same case with gradient . w for each objective: its gradients are Hessian-vector products, reverse over reverse."""

    def objectives(self, history):
        import theano
        import theano.tensor as tt

        w = {name: tt.constant(array) for name, array in self.problem.contracting().items()}
        pairs = []
        for (cost, _), o in zip(super().objectives(history), self.problem.objectives):
            gradients = theano.grad(cost, [self.inputs[name] for name in o["wrt"]], disconnected_inputs="ignore")
            products = [gradient * w[name] for name, gradient in zip(o["wrt"], gradients)]
            pairs.append((sum(tt.sum(p) for p in products), sum(tt.sum(abs(p)) for p in products)))
        return pairs


def rule_of(seeds, inputs):
    """The gradients of one node: seeds are its outputs' cotangents, {output: variable}; {input: (status, variable or reason)}."""
    named = dict(enumerate(inputs))
    found = symbolic_gradients(None, named, known_grads=OrderedDict(seeds), consider_constant=inputs)
    return {variable: found[i] for i, variable in named.items()}


def symbolic_gradients(cost, inputs, cotangent=None, **options):
    """{name: ("ok", variable) or ("null" | "disconnected" | "refused", reason)}. One `grad` for all, or one each."""
    import theano
    from theano.gradient import DisconnectedType, NullType

    if cost is not None:
        options["known_grads"] = {cost: cotangent}  # in place of the constant 1

    def take(names):
        return theano.grad(
            cost,
            [inputs[n] for n in names],
            **options,
            disconnected_inputs="ignore",
            null_gradients="return",
            return_disconnected="Disconnected",
        )

    try:
        taken = dict(zip(inputs, take(list(inputs))))
    except Exception:
        taken = {}
        for name in inputs:
            try:
                taken[name] = take([name])[0]
            except Exception as error:
                taken[name] = error

    def judged(result):
        if isinstance(result, Exception):
            told = type(result).__name__
            if told == "MethodNotDefined" and len(result.args) == 3:
                return "null", f"{told}: {result.args[2]} has no method {result.args[0]}"
            kind = "null" if told in ("NullTypeGradError", "MethodNotDefined", "NotImplementedError") else "refused"
            return kind, f"{told}: {str(result).strip() or 'an op has no reverse rule'}".split("\n")[0]
        if isinstance(result.type, NullType):
            return "null", result.type.why_null
        if isinstance(result.type, DisconnectedType):
            return "disconnected", "Theano found no path"
        return "ok", result

    return {name: judged(result) for name, result in taken.items()}


def no_code(error):
    """Why a linker that compiles cannot be used, in one line. The compiler's own words go to the log."""
    told = [
        line.partition("error:")[2].strip() for line in str(error).replace("\\n", "\n").split("\n") if "error:" in line
    ]
    why = told[0].partition(". ")[0] if told else "an operation of this case has no C code"
    return f"Theano cannot compile this case with a linker that uses C ({why}): set options: {{theano: {{linker: py}}}}"


def variable(name, array):
    import theano.tensor as tt

    return tt.TensorType(str(array.dtype), [n == 1 for n in array.shape])(name)


def constant(name, array):
    import theano.tensor as tt

    return tt.constant(array, name=name)


def like(value, reference):
    """The value with the reference's broadcastable flags, which scan demands of a carry; no node is added if they agree."""
    import theano.tensor as tt

    value = tt.as_tensor_variable(value)
    return (
        value if value.broadcastable == reference.broadcastable else tt.patternbroadcast(value, reference.broadcastable)
    )


def next_draw(value):
    """The same draw, one state further along its own generator."""
    first = value.owner
    return first.op.make_node(first.outputs[0], *first.inputs[1:]).outputs[1]

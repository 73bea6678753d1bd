"""Other random draws for the same graph, and draws that all steps of a scan share.

Runs inside a backend's interpreter: Python >= 3.9, numpy, Theano-PyMC. A generator's state is a shared variable that knows its
own update: an object of NumPy, or integers of MRG_RandomStream.
"""

import numpy as np

from .tape import Layout, Loop, lineage, toposort

LARGEST = 2147462578  # entries of an MRG state are below this (M2 of L'Ecuyer's MRG31k3p)


def function(costs, inputs, compile_):
    """(states, function of inputs and states that gives the costs); None if nothing is drawn. compile_: as Model.compile."""
    import theano
    from theano.graph.basic import graph_inputs

    states = [v for v in graph_inputs(costs) if v not in inputs and getattr(v, "default_update", None) is not None]
    if not states:
        return None
    others = {v: v.type() for v in states}
    return states, compile_(theano.clone(costs, replace=others), *others.values())


def state(variable, seed, number):
    """The state of a generator that is seeded anew. number: tells several of one model apart."""
    generator = np.random.RandomState([int(seed), number])
    value = variable.get_value(borrow=True)
    if not isinstance(value, np.ndarray):
        return generator
    return generator.randint(1, LARGEST, size=value.shape).astype(value.dtype)


def looks_shared(costs):
    """Whether a scan under some costs is given a draw as a non-sequence, or draws from a state that it does not advance."""
    for node in toposort(costs):
        if "Scan" not in lineage(node.op) or not (layout := Layout(node)).plain:
            continue
        given = {i for _, i in layout.fixed}
        inside = [n.inputs[0] for n in toposort(node.op.outputs) if is_draw(n)]
        if any(v in given for v in inside) or any(is_draw(n) for n in toposort([o for o, _ in layout.fixed])):
            return True
        if looks_shared(node.op.outputs):
            return True
    return False


def shared_steps(body, node):
    """At how many steps of a loop a draw was the same; 0 if it was not, or is read by no loop."""
    if isinstance(body, Loop):
        start, stop = body.spans[0]
        values = [body.env(run)[node.outputs[-1]] for run in range(start, min(stop, start + 2))]
        return stop - start if len(values) > 1 and np.array_equal(*values) else 0
    for loop in body.inner.values():
        if isinstance(loop, Loop) and node in toposort([outer for outer, _ in loop.layout.fixed]):
            start, stop = loop.spans[0]
            if stop - start > 1:
                return stop - start
    return 0


def is_draw(node):
    return bool(lineage(node.op) & {"RandomVariable", "mrg_uniform_base"})

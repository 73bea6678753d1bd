"""What the values of a recorded run derive from: inputs, stepwise ops, stops. Tells a stop that is meant from one that cuts.

Runs inside the interpreter of the jax backend: Python >= 3.9, numpy, JAX.

A stop is meant where what it stops is stepwise (a straight-through estimator: the derivative that is cut is zero), or where it
is a target: a value that is held against one that is differentiated, by subtraction, and that does not feed the loop that it
comes from.
"""

import collections

STEPWISE = ("round", "floor", "ceil", "sign")
SHAPES = ("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "convert_element_type", "slice", "copy",
          "concatenate", "dynamic_slice")  # fmt: skip

# depends: on an input that a gradient is asked for. stepped: through an op that moves in steps. behind: numbers of the stops
# that it derives from. fresh: those of them that nothing but its shape has changed since.
Past = collections.namedtuple("Past", "depends stepped behind fresh")
NOTHING = Past(False, False, frozenset(), frozenset())


def joined(pasts):
    """The past of what is made of several values and is none of the user's ops."""
    pasts = list(pasts)
    return Past(
        any(p.depends for p in pasts),
        any(p.stepped for p in pasts),
        frozenset().union(*(p.behind for p in pasts)),
        frozenset().union(*(p.fresh for p in pasts)),
    )


def after(name, number, nodes, inputs, outputs, is_inexact):
    """The past of an op's results. Notes with the node of a stop what it stops, and that it is a target; and with that of an op
    that what it is given moves, and what it returns moves in steps.
    """
    past = joined(v.past for v in inputs)
    to_integers = any(v.past.depends and is_inexact(v.data) for v in inputs) and not any(
        is_inexact(v.data) for v in outputs
    )
    steps = past.depends and (name in STEPWISE or to_integers)
    stepped = past.stepped or steps
    if steps and not past.stepped:
        nodes[number]["stepwise"] = True
    if name == "stop_gradient":
        node = nodes[number]
        node["behind"] |= past.behind
        node["stepped"] &= stepped or not past.depends  # an initial carry is no part of what is learned
        return Past(past.depends, stepped, past.behind | {number}, frozenset([number]))
    if name == "sub":
        for one, other in (inputs, inputs[::-1]):
            if other.active:
                for stop in one.past.fresh:
                    nodes[stop]["target"] = True
    return Past(past.depends, stepped, past.behind, past.fresh if name in SHAPES else frozenset())


def meant(number, node):
    """Why a stop is meant: "stepwise", "target", or "" if nothing shows that it is."""
    if node["kind"] != "stop":
        return ""
    if node["stepped"]:
        return "stepwise"
    return "target" if node["target"] and number not in node["behind"] else ""

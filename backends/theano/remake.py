"""A graph with its scans made again: without truncation, or with what a step has copied from around it handed in.

Runs inside a backend's interpreter: Python >= 3.9, Theano-PyMC. `theano.scan` copies an expression that the step reads from
around it: the scan is given what the expression is made of, and computes it anew in every step. The expression itself is then
no input of the scan, and no gradient by it passes through there.
"""

import copy

from .tape import Layout, is_constant, lineage, toposort


def remade(outputs, again):
    """The outputs on a copy of their graph. again: (scan node, its new inputs) -> its new outputs, or None to leave it."""
    new = {}
    for node in toposort(outputs):
        inputs = [new.get(v, v) for v in node.inputs]
        made = again(node, inputs) if "Scan" in lineage(node.op) else None
        if made is None and inputs != list(node.inputs):
            made = node.clone_with_new_inputs(inputs).outputs
        new.update(zip(node.outputs, made or ()))
    return [new.get(v, v) for v in outputs]


def scan(node, inputs, inner_inputs, inner_outputs, **info):
    """The outputs of a scan like that of a node, with another graph inside; they know the line of the old ones."""
    op = type(node.op)(inner_inputs, inner_outputs, {**node.op.info, **info})
    made = op.make_node(*inputs).outputs
    for old, variable in zip(node.outputs, made):
        variable.tag, variable.name = copy.copy(old.tag), old.name
    return made


def whole(outputs):
    """Without truncation, in scans inside of scans either."""

    def again(node, inputs):
        inside = whole(node.op.outputs)
        if inside == list(node.op.outputs) and node.op.truncate_gradient == -1:
            return None
        return scan(node, inputs, node.op.inputs, inside, truncate_gradient=-1)

    return remade(outputs, again)


def handed(outputs, expressions, meant=None):
    """(outputs, [(scan node, expression that its step has a copy of)]), with the copies replaced by further non-sequences.

    expressions: {an expression of the user's: the variable that stands for it in this graph}. meant: {variable of this graph:
    what it is in the user's}, inside of a scan.
    """
    found = []

    def again(node, inputs):
        layout = Layout(node)
        if not layout.plain:
            return None
        inside = {i: v for o, i in layout.fixed if (v := meaning(o, meant)) is not None}
        given = {e: e.type() for e in expressions}
        results = replaced(list(node.op.outputs), given, inside)
        results, _ = handed(results, given, inside)
        needed = {v for n in toposort(results) for v in n.inputs} | set(results)
        used = [e for e in expressions if given[e] in needed]
        if not used:
            return None
        found.extend((node, e) for e in used)
        return scan(
            node, [*inputs, *(expressions[e] for e in used)], [*node.op.inputs, *(given[e] for e in used)], results
        )

    return remade(outputs, again), found


def replaced(outputs, given, inside):
    """A step's outputs, with the variables of `given` in the place of the copies of the user's expressions."""
    import theano
    from theano.graph.basic import equal_computations

    copies = {}
    for node in toposort(outputs):
        for v in node.outputs:
            for e, variable in given.items():
                if alike(v, e) and (known := meaning(v, inside)) is not None and equal_computations([known], [e]):
                    copies[v] = variable
    return theano.clone(outputs, replace=copies) if copies else outputs


def alike(one, other):
    """Whether one may be a copy of the other: the same op, made by the same call. What only computes the same is none."""
    if one.owner is None or other.owner is None or one.owner.op != other.owner.op or one.type != other.type:
        return False
    return getattr(one.tag, "trace", None) == getattr(other.tag, "trace", None)


def meaning(variable, known):
    """What a variable is in the user's graph; None if it is not made of the known ones alone. known: None outside of scans."""
    import theano
    from theano.graph.basic import graph_inputs

    if known is None:
        return variable
    if not all(is_constant(v) or v in known for v in graph_inputs([variable])):
        return None
    return theano.clone(variable, replace=known)

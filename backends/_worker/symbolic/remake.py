"""A graph with its scans made again: without truncation, or with what a step has copied from around it handed in.

Runs inside a backend's interpreter: Python >= 3.9. The frameworks' `scan` copies an expression that the step reads from
around it: the scan is given what the expression is made of, and computes it anew in every step. The expression itself is then
no input of the scan, and no gradient by it passes through there.
"""

import copy

from .tape import Layout, inner_inputs, inner_outputs, is_constant, lineage, toposort


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


def scan(framework, node, inputs, inside, outputs, truncate_gradient):
    """The outputs of a scan like that of a node, with another graph inside; they know the line of the old ones."""
    made = framework.scan_op(node.op, inside, outputs, truncate_gradient).make_node(*inputs).outputs
    for old, variable in zip(node.outputs, made):
        variable.tag, variable.name = copy.copy(old.tag), old.name
    return made


def whole(framework, outputs):
    """Without truncation, in scans inside of scans either."""

    def again(node, inputs):
        before = inner_outputs(node.op)
        inside = whole(framework, before)
        if inside == before and node.op.truncate_gradient == -1:
            return None
        return scan(framework, node, inputs, inner_inputs(node.op), inside, -1)

    return remade(outputs, again)


def handed(framework, outputs, expressions, meant=None):
    """(outputs, [(scan node, expression that its step has a copy of)]), with the copies replaced by further non-sequences.

    expressions: {an expression of the user's: the variable that stands for it in this graph}. meant: {variable of this graph:
    what it is in the user's}, inside of a scan.
    """
    found = []

    def again(node, inputs):
        layout = Layout(node)
        if not layout.plain:
            return None
        inside = {i: v for o, i in layout.fixed if (v := meaning(framework, o, meant)) is not None}
        given = {e: e.type() for e in expressions}
        results = replaced(framework, inner_outputs(node.op), given, inside)
        results, _ = handed(framework, results, given, inside)
        needed = {v for n in toposort(results) for v in n.inputs} | set(results)
        used = [e for e in expressions if given[e] in needed]
        if not used:
            return None
        found.extend((node, e) for e in used)
        inputs = [*inputs, *(expressions[e] for e in used)]
        insides = [*inner_inputs(node.op), *(given[e] for e in used)]
        return scan(framework, node, inputs, insides, results, node.op.truncate_gradient)

    return remade(outputs, again), found


def replaced(framework, outputs, given, inside):
    """A step's outputs, with the variables of `given` in the place of the copies of the user's expressions."""
    copies = {}
    for node in toposort(outputs):
        for v in node.outputs:
            for e, variable in given.items():
                if (
                    alike(v, e)
                    and (known := meaning(framework, v, inside)) is not None
                    and framework.equal_computations([known], [e])
                ):
                    copies[v] = variable
    return framework.clone(outputs, replace=copies) if copies else outputs


def alike(one, other):
    """Whether one may be a copy of the other: the same op, made by the same call. What only computes the same is none."""
    if one.owner is None or other.owner is None or one.owner.op != other.owner.op or one.type != other.type:
        return False
    return getattr(one.tag, "trace", None) == getattr(other.tag, "trace", None)


def meaning(framework, variable, known):
    """What a variable is in the user's graph; None if it is not made of the known ones alone. known: None outside of scans."""
    if known is None:
        return variable
    if not all(is_constant(v) or v in known for v in framework.graph_inputs([variable])):
        return None
    return framework.clone(variable, replace=known)

"""Which gradients of a scan read a draw that its step makes, and through which op: those are refused, others may be wrong.

Runs inside a backend's interpreter: Python >= 3.9. A scan stores its outputs only. What else its backward pass needs it computes
again, from a random state that is not the forward pass's: where the gradient of an input reads a draw, the framework refuses it;
where the carry's own cotangent does, everything that passes through the carry is silently wrong.
"""

from . import sampling
from .nodes import name
from .tape import Loop, is_float, toposort


def explain(ops):
    """{"draws": [{op, file, line}], "reads": [{objective, parameter, carry, reads, op, file, line}]}.

    parameter: an input of the case, "" for the rows of carries: whether the cotangent of the carry (its number in the scan) reads
    a draw. op, file, line: the op through which, as far up as can be; "" and 0 where nothing is read.
    """
    draws, reads = [], []
    for loop in loops(ops.body):
        own = [node for node in loop.order if ops.is_draw(node)]
        if not own:
            continue
        draws += [
            dict(op=sampling.called(ops, node, name(node.op)), **placed(ops, node))
            for node in own
            if ops.counts(loop, node)
        ]
        for o in ops.problem.objectives:
            reads += told(ops, loop, own, o)
    return {"draws": draws, "reads": reads}


def loops(body):
    for inside in body.inner.values():
        if isinstance(inside, Loop):
            yield inside
        yield from loops(inside)


def told(ops, loop, own, objective):
    """The rows of one objective and one scan."""
    layout = loop.layout
    wanted = ancestors([ops.costs[objective["name"]]]) if loop.around is ops.body else set(loop.node.outputs)
    stored = [*[result for *_, result in layout.recurrent], *[result for _, result in layout.collected]]
    live = [*[result for *_, result in layout.recurrent], *[r for out, r in layout.collected if out in wanted]]
    live = [v for v in dict.fromkeys(live) if is_float(v)]
    copies = {v.copy(): v.type() for v in live}  # an output that another one is made of gets the sum of both cotangents
    carried = [(number, v) for number, (*_, insides, _) in enumerate(layout.recurrent) for v in insides if is_float(v)]
    entering = {}
    for n in objective["wrt"]:
        moved = ops.moved_by(n).get(loop.around, set())
        entering[n] = [inside for outer, inside in sources(layout) if outer in moved]
    wrt = list(
        dict.fromkeys(v for group in [*entering.values(), [v for _, v in carried]] for v in group if is_float(v))
    )
    taken = ops.machine.grad(copies, wrt)
    if not taken:
        return
    spoilt = depending(loop, own, stored)
    drawn = {v for node in own for v in node.outputs} - set(stored)
    reading = {v for v, (status, g) in taken.items() if status == "ok" and made_of(ops, g, [*stored, *drawn]) & drawn}
    for parameter, group in entering.items():
        yield row(
            ops,
            loop,
            spoilt,
            reading,
            group,
            live,
            {"objective": objective["name"], "parameter": parameter, "carry": -1},
        )
    for number, v in carried:
        yield row(
            ops, loop, spoilt, reading, [v], live, {"objective": objective["name"], "parameter": "", "carry": number}
        )


def row(ops, loop, spoilt, reading, group, live, about):
    reads = any(v in reading for v in group)
    node = through(ops, loop, spoilt, group, live) if reads else None
    where = {"file": "", "line": 0} if node is None else placed(ops, node)
    return {**about, "reads": reads, "op": name(node.op) if node is not None else "", **where}


def sources(layout):
    """(outer, inner) inputs of a scan that carry a gradient."""
    first = [(outer, insides[0]) for outer, _, _, insides, _ in layout.recurrent]
    return [*layout.sequences, *layout.fixed, *first]


def placed(ops, node):
    file, line = ops.place(node)
    return {"file": file, "line": line}


def depending(loop, own, stored):
    """The variables of a step that the backward pass would have to draw again for: made of a draw, and not stored."""
    found = {v for node in own for v in node.outputs} - set(stored)
    for node in loop.order:
        if any(v in found for v in node.inputs):
            found.update(v for v in node.outputs if v not in stored)
    return found


def through(ops, loop, spoilt, group, live):
    """The first op on a way from these inputs to a live output whose reverse rule reads what is made of a draw."""
    needed, moved, inner = ancestors(live), set(group), None
    for node in loop.order:
        affected = [v for v in node.inputs if v in moved]
        if not affected or not any(v in needed for v in node.outputs):
            continue
        moved.update(v for v in node.outputs if is_float(v))
        if node in loop.inner:  # named as a whole, if no op beside it reads the draw
            inner = inner or (node if any(v in spoilt for v in node.inputs) else None)
            continue
        outputs = tuple(i for i, v in enumerate(node.outputs) if is_float(v) and v in needed)
        if not outputs:
            continue
        _, taken, _ = ops.machine.rule(node, outputs)
        known = [*node.inputs, *node.outputs]
        for v in affected:
            status, given = taken.get(v, ("", None))
            if status == "ok" and made_of(ops, given, known) & spoilt:
                return node
    return inner


def made_of(ops, variable, known):
    """Which of the known variables an expression is made of, where it computes one of them again included."""
    found, seen, waiting = set(), set(), [variable]
    while waiting:
        v = waiting.pop()
        if v in seen:
            continue
        seen.add(v)
        match = v if v in known else next((k for k in known if again(ops, v, k)), None)
        if match is not None:
            found.add(match)
        elif v.owner is not None:
            waiting.extend(v.owner.inputs)
    return found


def again(ops, variable, known):
    """Whether a variable is the same computation as a known one: the backward pass of a scan takes the stored value for it."""
    one, other = variable.owner, known.owner
    return one is not None and other is not None and one.op == other.op and ops.machine.same([variable], [known])


def ancestors(variables):
    """All variables that these are made of, and these."""
    return {*variables, *(v for node in toposort(variables) for v in node.inputs)}

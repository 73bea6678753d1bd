"""Nested containers of tensors and modules: leaves by the names that their owners would write.

Runs inside the interpreter of the torch backend: Python >= 3.9, torch.
"""

import torch
from gradcheck_worker import namespace


def children(tree):
    """[(key as it is written in a name, value)] of a container; None for a leaf."""
    if isinstance(tree, dict):
        return [(f".{key}", value) for key, value in tree.items()]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return [(f".{field}", value) for field, value in zip(tree._fields, tree)]
    if isinstance(tree, (list, tuple)):
        return [(f"[{index}]", value) for index, value in enumerate(tree)]
    return None


def leaves(tree, path=""):
    """(path, leaf) of everything in a tree that is no container and not None, in order."""
    if tree is None:
        return
    inside = children(tree)
    if inside is None:
        yield path, tree
        return
    for key, value in inside:
        yield from leaves(value, path + key)


def mapped(function, tree):
    """The tree with each leaf in the place of which stands what the function makes of it."""
    if tree is None:
        return None
    inside = children(tree)
    if inside is None:
        return function(tree)
    values = [mapped(function, value) for _, value in inside]
    if isinstance(tree, dict):
        copy = dict(zip(tree, values))
        return copy if type(tree) is dict else rebuilt(tree, copy)
    return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)


def rebuilt(tree, items):
    """A dict of a kind of its own, such as an OrderedDict."""
    try:
        return type(tree)(items)
    except TypeError:  # a defaultdict, say
        return items


def stacked(rows):
    """One tree of tensors [steps, ...] of a list of trees of the same shape."""
    first = [leaf for _, leaf in leaves(rows[0])] if rows else []
    columns = [[leaf for _, leaf in leaves(row)] for row in rows]
    together = iter([torch.stack([torch.as_tensor(column[k]) for column in columns]) for k in range(len(first))])
    return mapped(lambda leaf: next(together), rows[0] if rows else None)


def name_of(path, whole="params"):
    """A leaf's name as its owner would write it: encoder.W_mu, layers[0].w; `whole` for a tree that is one leaf."""
    return path.lstrip(".") or whole


def named_tensors(tree):
    """(name, tensor) of every tensor; a module's parameters by their own names under that of the module."""
    for path, leaf in leaves(tree):
        if isinstance(leaf, torch.nn.Module):
            for name, parameter in leaf.named_parameters():
                yield f"{path}.{name}".lstrip("."), parameter
        elif isinstance(leaf, torch.Tensor):
            yield name_of(path), leaf


def modules(tree):
    return [leaf for _, leaf in leaves(tree) if isinstance(leaf, torch.nn.Module)]


def tensors_in(tree):
    return [leaf for _, leaf in leaves(tree) if isinstance(leaf, torch.Tensor)]


def dtype_name(value):
    """The name of a tensor's dtype; "" of what has none."""
    return namespace.dtype_name(getattr(value, "dtype", ""))

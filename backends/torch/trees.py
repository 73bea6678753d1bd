"""Nested containers of tensors and modules: leaves by the names that their owners would write.

Runs inside the interpreter of the torch backend: Python >= 3.9, torch.
"""

import numpy as np
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


class Widened:
    """float32 as float64. What is met twice stays one: tied tensors, and modules shared by two containers."""

    def __init__(self):
        self.copies = {}

    @staticmethod
    def in_place(tensor):
        if tensor.dtype is torch.float32:
            tensor.data = tensor.data.double()

    def copied(self, tree):
        """The tree with float64 tensors in the place of float32 ones; modules are widened where they are."""

        def wide(leaf):
            if isinstance(leaf, torch.nn.Module):
                for tensor in [*leaf.parameters(), *leaf.buffers()]:
                    self.in_place(tensor)
            elif isinstance(leaf, torch.Tensor) and leaf.dtype is torch.float32:
                if id(leaf) not in self.copies:
                    copy = leaf.detach().double().requires_grad_(leaf.requires_grad)
                    self.copies[id(leaf)] = leaf, copy  # the leaf is kept, so that its id stays its own
                return self.copies[id(leaf)][1]
            elif isinstance(leaf, np.ndarray) and leaf.dtype == np.float32:
                return leaf.astype(np.float64)
            return leaf

        return mapped(wide, tree)

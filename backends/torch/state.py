"""The state that an evaluation starts from and leaves behind: values, buffers, training flags, gradients, random numbers.

Runs inside the interpreter of the torch backend: Python >= 3.9, numpy, torch.
"""

import contextlib
import random
import types

import numpy as np
import torch

from . import trees

REACH = 1_000_003  # between the seeds of one draw and another


@contextlib.contextmanager
def seeded(seed, default):
    """All generators that a model may draw from, seeded, and torch's default float; both as they were, after."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    default_before = torch.get_default_dtype()
    seed_torch(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    torch.set_default_dtype(default)
    try:
        yield types.SimpleNamespace(default=torch.get_default_dtype)
    finally:
        torch.set_default_dtype(default_before)
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def seed_torch(seed):
    """As torch.manual_seed, which for devices that are not in use queues a call with its traceback each time: 2 ms."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed % 2**63)
    return torch.default_generator.manual_seed(seed % 2**63)


@contextlib.contextmanager
def redrawing(seed):
    """Within `seeded`: other draws, also where a model seeds itself."""
    plain = torch.manual_seed
    torch.manual_seed = lambda own: seed_torch(int(own) + REACH * (seed + 1))
    torch.manual_seed(0)
    np.random.seed((REACH * (seed + 1)) % 2**32)
    random.seed(REACH * (seed + 1))
    try:
        yield
    finally:
        torch.manual_seed = plain


@contextlib.contextmanager
def shifted(problem, seed):
    """Other draws in every evaluation, also where a model seeds itself. seed: which ones."""
    plain, own = torch.manual_seed, (problem.seed, getattr(problem, "draw_seed", 0))
    shift = REACH * (seed + 1)
    torch.manual_seed = lambda given: seed_torch(int(given) + shift)
    problem.seed, problem.draw_seed = own[0] + shift, own[1] + shift
    try:
        yield
    finally:
        torch.manual_seed, problem.seed, problem.draw_seed = plain, *own


class State:
    """What a model is put back to after each evaluation, bit for bit.

    tensors: the parameters by name; modules: those whose tensors and flags are kept; data: trees of what the model is given.
    widened: whether float32 tensors are float64 within an evaluation.
    """

    def __init__(self, tensors, modules, data, widened=False):
        self.tensors, self.widened = tensors, widened
        given = [leaf for tree in data for _, leaf in trees.leaves(tree)]
        modules = [*modules, *(leaf for leaf in given if isinstance(leaf, torch.nn.Module))]
        inside = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        every = {id(t): t for t in [*tensors.values(), *inside, *given] if isinstance(t, torch.Tensor) and t.is_leaf}
        self.kept = [(t, t.data, t.detach().clone(), t.requires_grad, t.grad) for t in every.values()]
        self.flags = {id(m): (m, m.training) for module in modules for m in module.modules()}

    @contextlib.contextmanager
    def evaluation(self, seed, default, arrays, moving):
        """Moved to these arrays, seeded; as before, after."""
        with seeded(seed, default):
            try:
                for tensor, own, *_ in self.kept:
                    tensor.grad = None
                    if self.widened and own.dtype is torch.float32:
                        tensor.data = own.double()
                for name, array in arrays.items():
                    with torch.no_grad():
                        self.tensors[name].copy_(torch.tensor(array))
                for name in moving:
                    self.tensors[name].requires_grad_()
                with torch.enable_grad():
                    yield
            finally:
                self.restore()

    def restore(self):
        for tensor, own, before, required, gradient in self.kept:
            if not tensor.is_leaf:  # written in place by what requires grad
                tensor.detach_()
            tensor.grad = None  # it has to be of the dtype that its tensor has
            if tensor.data_ptr() != own.data_ptr() or tensor.dtype != own.dtype or tensor.shape != own.shape:
                tensor.data = own  # widened, or replaced by way of .data
            with torch.no_grad():
                tensor.detach().copy_(before)
            tensor.requires_grad_(required)
            tensor.grad = gradient
        for module, training in self.flags.values():
            module.training = training

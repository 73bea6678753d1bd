"""JAX's float64 switch, turned within a scope and for this thread alone.

Runs inside the interpreter of the jax backend: Python >= 3.9, JAX. The switch of the process stays as its owner set it.
"""

import functools


def x64(wanted):
    """A scope in which float64 is on or off."""
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(wanted)
    from jax.experimental import enable_x64  # its name before 0.8

    return enable_x64(wanted)


def precise(method):
    """Run a method within the scope of its object's `in_precision()`."""

    @functools.wraps(method)
    def scoped(self, *arguments, **named):
        with self.in_precision():
            return method(self, *arguments, **named)

    return scoped

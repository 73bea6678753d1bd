"""A square root guarded by where, at zero, inside a scan."""

import jax.numpy as jnp


def build():
    def step(params, carry, x):
        root = jnp.where(x > 0, jnp.sqrt(x * params["w"]), x)
        return 0.9 * carry + params["w"] * root, None

    return {
        "step": step,
        "carry": jnp.asarray(0.0),
        "inputs": jnp.array([4.0, 0.0, 1.0]),
        "params": {"w": jnp.asarray(0.7)},
    }

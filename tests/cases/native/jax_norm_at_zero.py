"""The squared norm is smooth at zero, its two factors are not."""

import jax.numpy as jnp


def build():
    return {"loss": lambda p: jnp.linalg.norm(p["v"]) ** 2, "params": {"v": jnp.zeros(3)}}

"""A stateful draw under checkpoint: nothing that is asked twice is answered alike."""

import jax
import jax.numpy as jnp


def build():
    @jax.checkpoint
    def scaled(x):
        return x * jax.lax.rng_uniform(0.0, 1.0, ())

    return {"loss": lambda p: scaled(p["x"]), "params": {"x": jnp.asarray(1.0)}}

"""A discrete sample has no pathwise derivative by its probability."""

import jax
import jax.numpy as jnp


def build():
    def loss(params):
        return jnp.where(jax.random.bernoulli(jax.random.key(0), params["p"]), 3.0, 1.0)

    return {"loss": loss, "params": {"p": jnp.asarray(0.3)}}

"""A precision drawn from a Gamma distribution: JAX differentiates the distribution, not the one draw of a key."""

import jax
import jax.numpy as jnp


def build():
    def loss(params):
        precision = jax.random.gamma(jax.random.key(4), params["shape"])
        return jnp.sum(jnp.log1p(precision))

    return {"loss": loss, "params": {"shape": jnp.array([1.3, 2.6])}}

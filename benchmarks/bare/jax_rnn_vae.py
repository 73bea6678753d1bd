"""The model of cases/rnn_vae.yaml as a user of JAX writes it by hand: `lax.scan` and a Python loop, both jitted."""

import json

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

STEPS, BATCH, INPUT, HIDDEN, LATENT = 12, 4, 6, 8, 3
SHAPES = {
    "W_ex": (INPUT, HIDDEN), "W_eh": (HIDDEN, HIDDEN), "b_e": (HIDDEN,),
    "W_mu": (HIDDEN, LATENT), "b_mu": (LATENT,), "W_sigma": (HIDDEN, LATENT), "b_sigma": (LATENT,),
    "W_p": (HIDDEN, HIDDEN), "b_p": (HIDDEN,),
    "W_pmu": (HIDDEN, LATENT), "b_pmu": (LATENT,), "W_psigma": (HIDDEN, LATENT), "b_psigma": (LATENT,),
    "W_dz": (LATENT, HIDDEN), "W_dh": (HIDDEN, HIDDEN), "b_d": (HIDDEN,), "W_out": (HIDDEN, INPUT), "b_out": (INPUT,),
    "W_x": (INPUT, HIDDEN), "W_h": (HIDDEN, HIDDEN), "W_z": (LATENT, HIDDEN), "b_h": (HIDDEN,),
    "W_f": (HIDDEN, HIDDEN), "b_f": (HIDDEN,), "W_est": (HIDDEN, INPUT), "b_est": (INPUT,),
}  # fmt: skip
WRT = {
    "hidden": ["W_x", "W_h", "W_z", "b_h", "W_mu", "W_sigma"],
    "obj": ["W_mu", "b_mu", "W_sigma", "W_pmu", "W_dz", "W_out", "b_out", "W_x"],
    "est": ["W_est", "b_est", "W_x", "W_sigma"],
}

rng = np.random.default_rng(0)
params = {name: 0.3 * rng.standard_normal(shape) for name, shape in SHAPES.items()}
x = rng.standard_normal((STEPS, BATCH, INPUT))
eps = rng.standard_normal((STEPS, BATCH, LATENT))
weight_hidden = rng.standard_normal((STEPS, BATCH, HIDDEN))
weight_est = rng.standard_normal((STEPS, BATCH, INPUT))


def step(p, h, x_t, eps_t):
    e = jnp.tanh(x_t @ p["W_ex"] + h @ p["W_eh"] + p["b_e"])
    mu, log_var = e @ p["W_mu"] + p["b_mu"], e @ p["W_sigma"] + p["b_sigma"]
    prior = jnp.tanh(h @ p["W_p"] + p["b_p"])
    mu_p, log_var_p = prior @ p["W_pmu"] + p["b_pmu"], prior @ p["W_psigma"] + p["b_psigma"]
    z = mu + jnp.exp(0.5 * log_var) * eps_t
    d = jnp.tanh(z @ p["W_dz"] + h @ p["W_dh"] + p["b_d"])
    r = log_var - log_var_p
    kl = 0.5 * jnp.sum(jnp.expm1(r) - r + (mu - mu_p) ** 2 * jnp.exp(-log_var_p), axis=-1)
    obj = 0.5 * jnp.sum((x_t - d @ p["W_out"] - p["b_out"]) ** 2, axis=-1) + kl
    h = jnp.tanh(x_t @ p["W_x"] + h @ p["W_h"] + z @ p["W_z"] + p["b_h"])
    est = jnp.tanh(h @ p["W_f"] + p["b_f"]) @ p["W_est"] + p["b_est"]
    return h, obj, est


def scan(p, x, eps):
    def body(h, inputs):
        h, obj, est = step(p, h, *inputs)
        return h, (h, obj, est)

    return jax.lax.scan(body, jnp.zeros((BATCH, HIDDEN)), (x, eps))[1]


def loop(p, x, eps):
    h = jnp.zeros((BATCH, HIDDEN))
    hs, objs, ests = [], [], []
    for t in range(STEPS):
        h, obj, est = step(p, h, x[t], eps[t])
        hs.append(h)
        objs.append(obj)
        ests.append(est)
    return jnp.stack(hs), jnp.stack(objs), jnp.stack(ests)


REDUCE = {
    "hidden": lambda h, obj, est: jnp.sum(h * weight_hidden),
    "obj": lambda h, obj, est: jnp.sum(obj),
    "est": lambda h, obj, est: jnp.sum(est * weight_est),
}

results = {"scan": {}, "unroll": {}}
for rollout, run in (("scan", scan), ("unroll", loop)):
    for name, wrt in WRT.items():

        def objective(wanted, rest, x, eps, run=run, name=name):
            return REDUCE[name](*run({**rest, **wanted}, x, eps))

        wanted = {n: params[n] for n in wrt}
        value_and_grad = jax.jit(jax.value_and_grad(objective, argnums=0))
        rest = {n: params[n] for n in params if n not in wanted}
        value, grads = value_and_grad(wanted, rest, x, eps)
        norms = {n: float(np.linalg.norm(g)) for n, g in grads.items()}
        results[rollout][name] = {"value": float(value), "norms": norms}
print(json.dumps(results))

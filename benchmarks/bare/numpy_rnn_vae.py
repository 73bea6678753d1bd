"""The model of cases/rnn_vae.yaml as a user of HIPS autograd writes it by hand: NumPy in a Python loop."""

import json

import autograd.numpy as np
from autograd import value_and_grad

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
    e = np.tanh(x_t @ p["W_ex"] + h @ p["W_eh"] + p["b_e"])
    mu, log_var = e @ p["W_mu"] + p["b_mu"], e @ p["W_sigma"] + p["b_sigma"]
    prior = np.tanh(h @ p["W_p"] + p["b_p"])
    mu_p, log_var_p = prior @ p["W_pmu"] + p["b_pmu"], prior @ p["W_psigma"] + p["b_psigma"]
    z = mu + np.exp(0.5 * log_var) * eps_t
    d = np.tanh(z @ p["W_dz"] + h @ p["W_dh"] + p["b_d"])
    r = log_var - log_var_p
    kl = 0.5 * np.sum(np.expm1(r) - r + (mu - mu_p) ** 2 * np.exp(-log_var_p), axis=-1)
    obj = 0.5 * np.sum((x_t - d @ p["W_out"] - p["b_out"]) ** 2, axis=-1) + kl
    h = np.tanh(x_t @ p["W_x"] + h @ p["W_h"] + z @ p["W_z"] + p["b_h"])
    est = np.tanh(h @ p["W_f"] + p["b_f"]) @ p["W_est"] + p["b_est"]
    return h, obj, est


def loop(p, x, eps):
    h = np.zeros((BATCH, HIDDEN))
    hs, objs, ests = [], [], []
    for t in range(STEPS):
        h, obj, est = step(p, h, x[t], eps[t])
        hs.append(h)
        objs.append(obj)
        ests.append(est)
    return np.stack(hs), np.stack(objs), np.stack(ests)


REDUCE = {
    "hidden": lambda h, obj, est: np.sum(h * weight_hidden),
    "obj": lambda h, obj, est: np.sum(obj),
    "est": lambda h, obj, est: np.sum(est * weight_est),
}

results = {}
for name, wrt in WRT.items():

    def objective(wanted, rest, x, eps, name=name):
        return REDUCE[name](*loop({**rest, **wanted}, x, eps))

    wanted = {n: params[n] for n in wrt}
    rest = {n: params[n] for n in params if n not in wanted}
    value, grads = value_and_grad(objective)(wanted, rest, x, eps)
    results[name] = {"value": float(value), "norms": {n: float(np.linalg.norm(g)) for n, g in grads.items()}}
print(json.dumps({"unroll": results}))

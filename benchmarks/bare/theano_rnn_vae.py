"""The model of cases/rnn_vae.yaml as a user of Theano writes it by hand: `theano.scan` and an unrolled graph."""

import json
import os

# the mode, linker and dtype of the case, and what Theano needs to start on a current machine
os.environ["THEANO_FLAGS"] = "mode=FAST_COMPILE,cxx=,floatX=float64,blas__ldflags="

import numpy as np
import theano
import theano.tensor as tt

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
params = {name: theano.shared(0.3 * rng.standard_normal(shape), name) for name, shape in SHAPES.items()}
x_data = rng.standard_normal((STEPS, BATCH, INPUT))
eps_data = rng.standard_normal((STEPS, BATCH, LATENT))
weight_hidden = rng.standard_normal((STEPS, BATCH, HIDDEN))
weight_est = rng.standard_normal((STEPS, BATCH, INPUT))


x, eps = tt.dtensor3("x"), tt.dtensor3("eps")
h0 = tt.zeros((BATCH, HIDDEN))


def step(x_t, eps_t, h, *values):
    p = dict(zip(params, values))  # noqa: B905 -- Python 3.9 has no strict zip
    e = tt.tanh(tt.dot(x_t, p["W_ex"]) + tt.dot(h, p["W_eh"]) + p["b_e"])
    mu, log_var = tt.dot(e, p["W_mu"]) + p["b_mu"], tt.dot(e, p["W_sigma"]) + p["b_sigma"]
    prior = tt.tanh(tt.dot(h, p["W_p"]) + p["b_p"])
    mu_p, log_var_p = tt.dot(prior, p["W_pmu"]) + p["b_pmu"], tt.dot(prior, p["W_psigma"]) + p["b_psigma"]
    z = mu + tt.exp(0.5 * log_var) * eps_t
    d = tt.tanh(tt.dot(z, p["W_dz"]) + tt.dot(h, p["W_dh"]) + p["b_d"])
    r = log_var - log_var_p
    kl = 0.5 * tt.sum(tt.expm1(r) - r + (mu - mu_p) ** 2 * tt.exp(-log_var_p), axis=-1)
    obj = 0.5 * tt.sum((x_t - tt.dot(d, p["W_out"]) - p["b_out"]) ** 2, axis=-1) + kl
    h = tt.tanh(tt.dot(x_t, p["W_x"]) + tt.dot(h, p["W_h"]) + tt.dot(z, p["W_z"]) + p["b_h"])
    est = tt.dot(tt.tanh(tt.dot(h, p["W_f"]) + p["b_f"]), p["W_est"]) + p["b_est"]
    return h, obj, est


def scan():
    fixed = list(params.values())
    return theano.scan(step, sequences=[x, eps], outputs_info=[h0, None, None], non_sequences=fixed, n_steps=STEPS)[0]


def loop():
    h = h0
    hs, objs, ests = [], [], []
    for t in range(STEPS):
        h, obj, est = step(x[t], eps[t], h, *params.values())
        hs.append(h)
        objs.append(obj)
        ests.append(est)
    return tt.stack(hs), tt.stack(objs), tt.stack(ests)


REDUCE = {
    "hidden": lambda h, obj, est: tt.sum(h * weight_hidden),
    "obj": lambda h, obj, est: tt.sum(obj),
    "est": lambda h, obj, est: tt.sum(est * weight_est),
}

results = {"scan": {}, "unroll": {}}
for rollout, run in (("scan", scan), ("unroll", loop)):
    outputs = run()
    for name, wrt in WRT.items():
        cost = REDUCE[name](*outputs)
        grads = theano.grad(cost, [params[n] for n in wrt])
        value, *grads = theano.function([x, eps], [cost, *grads])(x_data, eps_data)
        norms = {n: float(np.linalg.norm(g)) for n, g in zip(wrt, grads)}  # noqa: B905
        results[rollout][name] = {"value": float(value), "norms": norms}
print(json.dumps(results))

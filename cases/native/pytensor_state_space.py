"""The likelihood of a local linear trend, as a PyMC model would hold it: a Kalman filter, run over the data by pytensor.scan."""

import numpy as np
import pytensor.tensor as pt

STEPS = 12


def simulated(rng):
    """A level with a drifting slope, seen through noise: (STEPS,)."""
    slope = 0.1 + 0.05 * rng.standard_normal(STEPS).cumsum()
    return slope.cumsum() + 0.4 * rng.standard_normal(STEPS)


def build():
    y = pt.vector("y", dtype="float64")
    log_sigma_obs, log_sigma_level, log_sigma_slope = (
        pt.scalar(f"log_sigma_{name}", dtype="float64") for name in ("obs", "level", "slope")
    )
    a0 = pt.vector("a0", dtype="float64")  # the state before the data: level and slope

    T = pt.as_tensor([[1.0, 1.0], [0.0, 1.0]])
    Z = pt.as_tensor([1.0, 0.0])
    H = pt.exp(2 * log_sigma_obs)
    Q = pt.diag(pt.exp(2 * pt.stack([log_sigma_level, log_sigma_slope])))

    def filter_step(y_t, a, P, H, Q):
        v = y_t - Z @ a
        F = Z @ P @ Z + H
        K = T @ P @ Z / F
        a = T @ a + K * v
        P = T @ P @ T.T + Q - pt.outer(K, K) * F
        return a, P, -0.5 * (pt.log(2 * np.pi * F) + v**2 / F)

    return {
        "scan": {
            "fn": filter_step,
            "sequences": [y],
            "outputs_info": [a0, pt.as_tensor(10.0 * np.eye(2)), None],
            "non_sequences": [H, Q],
        },
        "objectives": {
            "logp": lambda a, P, logp: logp.sum(),
            "forecast": lambda a, P, logp: a[-1, 0],
        },
        "wrt": [log_sigma_obs, log_sigma_level, log_sigma_slope, a0],
        "inputs": {
            y: simulated(np.random.default_rng(0)),
            log_sigma_obs: np.log(0.4),
            log_sigma_level: np.log(0.2),
            log_sigma_slope: np.log(0.1),
            a0: [0.0, 0.1],
        },
    }

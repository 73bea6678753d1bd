"""What runs inside a backend's interpreter: Python >= 3.9, numpy >= 1.22, nothing else.

Loaded as the package `gradcheck_worker` by file location, so nothing of it lies on sys.path. Never imports gradcheck.
The worker computes, the core judges: no tolerance, no verdict and no finite-difference policy lives here.
"""

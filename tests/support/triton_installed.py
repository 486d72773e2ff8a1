"""Importing this fails where Triton's kernels cannot be tested: without Triton, or if its interpreter is too old."""

import os

import triton

if os.environ.get("TRITON_INTERPRET") == "1" and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9):
    raise ModuleNotFoundError(f"the interpreter of Triton {triton.__version__} does not work with NumPy 2.4; 3.9 does")

"""Import this to learn whether ffcv is installed: `import ffcv` itself compiles for four seconds in every process.

The project opens ffcv's library file alone, see pipelines/executors/ffcv_kernels.py.
"""

from importlib.util import find_spec

if find_spec("ffcv") is None:
    raise ModuleNotFoundError("ffcv is not installed")

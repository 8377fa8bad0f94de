"""The real CuPy without a GPU: an environment whose CUDA libraries run on the CPU. README.md beside this file describes it."""

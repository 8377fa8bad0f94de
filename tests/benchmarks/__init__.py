"""Measurements of xpnet's speed, memory and size, and of other libraries'. See ``python -m tests.benchmarks --help``."""

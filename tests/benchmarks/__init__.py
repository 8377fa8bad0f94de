"""Speed, memory and size of xpnet compared with other libraries: ``python -m tests.benchmarks --help``."""

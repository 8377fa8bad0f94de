"""Speed, memory and size of xpnet beside other libraries: ``python -m tests.benchmarks --help``."""

"""The gateway's benchmark: Portico, nginx and LiteLLM in one run on one machine, over a fake upstream.

`make bench`, or `python -m bench.gateway --help`. What it does and why is told in `docs/performance.md`.
"""

"""The portal at scale: a database of a large organisation is seeded, then every page and its API are asked for.

`python -m bench.portal`; `options.py` says what may be asked, `docs/performance.md` how it is measured.
"""

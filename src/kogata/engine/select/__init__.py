"""Selectors, one a file: each gives every document, or example, of a pool a score; the highest stay.

A variant defines `Settings`, `NEEDS` (of `target`, `model`, `examples`), `BYTES_PER_SECOND` for the forecast
and `scores(settings, pool)`, [items] of float64. An item that is −inf goes whatever there is room for.
`_pool.py` says what a pool offers.
"""

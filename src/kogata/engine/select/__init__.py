"""Selectors, one a file: each gives every document, or example, of a pool a score; the highest stay.

A variant defines `Settings`, `NEEDS` (of `target`, `model`, `examples`) and `scores(settings, pool)`, [items]
of float64; an item that is −inf goes whatever there is room for, and `pool.reasons` may say why. For the
forecast it defines `BYTES_PER_SECOND` and, where they matter, `ITEM_SECONDS` and `held_bytes(rows, size)`.
One whose steps other processes can do says so by `SPREADS`, and what each of them holds by `STEP_BYTES` or
`step_bytes(rows, size)`; where steps are few, `parts_of(rows)` is their number and `STEP_SECONDS` what they
take of a row.
`_pool.py` says what a pool offers.
"""

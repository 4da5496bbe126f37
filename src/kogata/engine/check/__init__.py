"""Checks of examples, one a file.

A check has `CHEAP` (fast enough to guard every run), `NEEDS` (`tokenizer` or `renderer` where it
looks at what a model reads, else None) and `check(examined)`, which lists what it found.
"""

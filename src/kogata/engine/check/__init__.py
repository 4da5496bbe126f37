"""Checks of examples, one a file.

A check has `CHEAP` (fast enough to guard every run), `NEEDS_MODEL` (looks at tokens) and
`check(examined)`, which lists what it found.
"""

"""Ways to find duplicates, one a file; `data.dedup` names them as its `methods`.

A variant defines `Settings` and `STREAMS`. One that streams (it needs only what came before) defines
`reason(training: bool)`: why a training document goes that equals an earlier document, a training one or
not; None where it stays. One that looks at the whole corpus defines `Gather`, which notes what it needs of
each document in one pass, and `decide`, which judges from the notes (`_table.py`); one that takes parts out
of texts says `EDITS = True` and decides after the others.
"""

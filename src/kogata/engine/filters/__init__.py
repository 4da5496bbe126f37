"""Rules a document may fail. A file here is one family of rules with its settings; `_…` files measure.

A family defines `Settings` and either `family(settings)`, or `learned(settings, sample)` where it must see
some of the corpus first; both give a `Family` (`_family.py`).
"""

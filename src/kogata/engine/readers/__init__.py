"""Formats of text files, one a file.

A reader has `SUFFIXES`, `read(file, options, account)` that yields documents one by one, and
`sample(file, options)` that looks at the beginning of a file for the plan. A reader of tables has besides
`rows(file, options, account)`, which yields numbered rows, name → value.
"""

"""How hard windows of text are. One measure a file.

A measure has `Settings`, `measure(supply, windows, settings)`, which gives a number for every window (larger
is harder), `seconds(tokens)`, what that takes, and where it holds much, `held_bytes(settings)`.
"""

"""What training sees when: how long the windows are, or how hard the text in them. One way a file.

A way has `Settings`, `make(supply, settings)`, which gives the run's sampler, and, where it only decides the
windows' lengths, `lengths(context, settings)`, so that sampling by source can follow it. A way that measures
difficulty says with `seconds(tokens, settings)` what that will take.
"""

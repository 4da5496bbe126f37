"""Which text training samples, and how much each row counts. One way a file.

A way has `Settings` and `make(supply, curriculum, settings)`, which gives the run's sampler; where it only
changes how rows count it builds on the curriculum's own.
"""

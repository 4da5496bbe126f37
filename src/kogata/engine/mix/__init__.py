"""How much of each source a mixture holds; one way a file: `Settings` and `weigh(sizes, settings)`.

A way that learns the weights first also has `learn(corpora, sizes, settings, bench)`, which gives them with
facts, and `cost(settings, machine)`; `weigh` then gives those to plan with.
"""

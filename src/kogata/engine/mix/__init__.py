"""How much of each source a mixture holds; one way a file: `Settings` and `weigh(sizes, settings)`."""

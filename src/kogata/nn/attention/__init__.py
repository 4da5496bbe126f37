"""Mixers: how a block moves information between tokens. One file, one `Mixer` class."""

"""Mixers whose memory has a fixed size, whatever the length. One file, one `Mixer` class."""

"""Feed-forward parts: what a block does to each token alone. One file, one `FeedForward` class."""

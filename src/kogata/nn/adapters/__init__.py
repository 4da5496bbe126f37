"""Small trainable parts that stand in a linear layer's place, one technique a file."""

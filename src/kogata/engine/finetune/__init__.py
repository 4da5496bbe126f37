"""Methods of fine-tuning, one a file: what is trained, what it costs, how it is saved."""

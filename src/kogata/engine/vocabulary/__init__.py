"""Ways to make a vocabulary, one a file: `train(texts, size, pre) -> tokenizers.Tokenizer`.

For the plan, without importing `tokenizers`, each states `sample_bytes(facts)`, how much it looks at;
`train_seconds(facts, bytes)` and `train_bytes(facts, bytes)`, what that costs; `auto_size(facts,
budget_seconds) -> (size or None, reason)`; and `expected(facts, size) -> (vocabulary, bytes per token)`.
"""

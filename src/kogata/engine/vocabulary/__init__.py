"""Ways to make a vocabulary, one a file: `train(texts, size, pre) -> tokenizers.Tokenizer`.

Each also states `auto_size(facts, budget_seconds) -> (size or None, reason)` and
`expected(facts, size) -> (vocabulary, bytes per token)` for the plan, without importing `tokenizers`.
"""

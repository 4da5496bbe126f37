"""A GGUF file's tokenizer of SentencePiece's kinds, rebuilt: Unigram (`t5`), or BPE by scores (`llama`)."""

from __future__ import annotations

from typing import Any

SPACE = "▁"
KINDS = ("llama", "t5")
"""What llama.cpp calls them."""
_NORMAL, _BYTE = 1, 6


def build_pieces(settings: dict[str, Any]) -> Any:
    """Builds the `tokenizers.Tokenizer` of a GGUF file's settings, without its special tokens' marks."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokens: list[str] = settings["tokenizer.ggml.tokens"]
    scores: list[float] = settings.get("tokenizer.ggml.scores") or [0.0] * len(tokens)
    kinds: list[int] = settings.get("tokenizer.ggml.token_type") or [_NORMAL] * len(tokens)
    unknown = settings.get("tokenizer.ggml.unknown_token_id")
    unigram = settings["tokenizer.ggml.model"] == "t5"
    # llama.cpp puts a space before a text where the file does not say: of `llama` yes, of `t5` no.
    prefix = bool(settings.get("tokenizer.ggml.add_space_prefix", not unigram))
    bytes_there = _BYTE in kinds
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    steps += [decoders.Strip(" ", 1, 0)] if prefix else []
    if not unigram:
        vocab = {token: index for index, token in enumerate(tokens)}
        named = None if unknown is None else tokens[unknown]
        found = Tokenizer(
            models.BPE(
                vocab=vocab,
                merges=_merges(tokens, scores, kinds),
                unk_token=named,
                byte_fallback=bytes_there,
                fuse_unk=True,
            )
        )
        before: list[Any] = [normalizers.Prepend(SPACE)] if prefix else []
        found.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", SPACE)])
        found.decoder = decoders.Sequence(steps)
        return found
    pairs = list(zip(tokens, map(float, scores), strict=True))
    found = Tokenizer(models.Unigram(pairs, unknown, bytes_there))
    mapped = settings.get("tokenizer.ggml.precompiled_charsmap")
    before = [normalizers.Precompiled(bytes(value % 256 for value in mapped))] if mapped else []
    if settings.get("tokenizer.ggml.remove_extra_whitespaces"):
        before.append(normalizers.Replace(Regex(" {2,}"), " "))
    if before:
        found.normalizer = normalizers.Sequence(before)
    scheme = "always" if prefix else "never"
    found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    found.decoder = decoders.Sequence(steps)
    return found


def _merges(tokens: list[str], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
    """Lists every way to join two pieces into a third, those of the highest score first."""
    rank = {token: scores[at] for at, token in enumerate(tokens) if kinds[at] == _NORMAL}
    places = {token: at for at, token in enumerate(tokens)}
    ways = [
        (token[:cut], token[cut:])
        for token in sorted(rank, key=lambda token: (-rank[token], places[token]))
        for cut in range(1, len(token))
        if token[:cut] in rank and token[cut:] in rank
    ]
    return ways

"""Writing on, token by token, with a cache: greedy, or drawn with temperature, top-k and top-p."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from kogata.core.errors import DataError


def generate_tokens(
    decoder: Any,
    ids: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    end_id: int | Collection[int] | None = None,
) -> Iterator[int]:
    """Gives the tokens that follow `ids` one by one; stops before an end token.

    When the model's context is full, the window slides: its later half is read again and writing goes on.

    Args:
        decoder: our Decoder, or what has its `hidden`, `logits`, `new_cache`.
        ids: the prompt, at least one token.
        max_tokens: at most so many new ones.
        temperature: 0 takes the likeliest token each time; 1 draws from the model's own distribution.
        top_k: draws only from the k likeliest.
        top_p: draws only from the likeliest that together hold this probability.
        seed: decides the draws.
        end_id: token or tokens that end the text.
    """
    if not ids:
        raise DataError(
            "nothing to continue", where="prompt", found="no token", expected="at least one token"
        )
    ends = {end_id} if isinstance(end_id, int) else set(end_id or ())
    generator = torch.Generator().manual_seed(seed)
    context = _context(decoder)
    window = list(ids)
    limit = len(window) + max_tokens if context is None else min(context, len(window) + max_tokens)
    if len(window) >= limit:
        window = window[-max(1, limit - min(max_tokens, limit // 2)) :]
    cache, new = decoder.new_cache(1, limit), window
    for _ in range(max_tokens):
        if cache.length + len(new) > limit:
            window = window[-max(1, limit // 2) :]
            cache, new = decoder.new_cache(1, limit), window
        token = _choose(_next_logits(decoder, new, cache), temperature, top_k, top_p, generator)
        if token in ends:
            return
        yield token
        new = [token]
        window.append(token)


def generate(decoder: Any, ids: Sequence[int], max_tokens: int, **options: Any) -> list[int]:
    """Gives the tokens that follow `ids`; see `generate_tokens`."""
    return list(generate_tokens(decoder, ids, max_tokens=max_tokens, **options))


def generate_text(
    loaded: Any,
    prompt: str,
    *,
    max_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Gives the text that follows a prompt in pieces that are whole characters.

    Args:
        loaded: a `LoadedModel`.
        prompt: may be empty: the model then begins a text of its own.
        max_tokens: at most so many new tokens.
        temperature: see `generate_tokens`.
        top_k: see `generate_tokens`.
        top_p: see `generate_tokens`.
        seed: see `generate_tokens`.
    """
    if loaded.source.role != "decoder":
        raise DataError(
            "this model cannot write",
            where=loaded.source.name,
            found="a text encoder",
            expected="a causal language model",
        )
    # As in evaluation, the end token stands before a text's start.
    start = [] if loaded.end_id is None else [loaded.end_id]
    plain = loaded.encode(prompt)
    whole = loaded.tokenizer.encode(prompt).ids
    # Where the tokenizer itself puts a beginning before every text, that one is meant.
    ids = whole if len(whole) > len(plain) and whole[len(whole) - len(plain) :] == plain else start + plain
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    tokens = generate_tokens(loaded.decoder, ids, max_tokens=max_tokens, end_id=loaded.end_ids, **options)
    yield from pieces(loaded.tokenizer, tokens)


def pieces(tokenizer: Any, tokens: Iterator[int]) -> Iterator[str]:
    """Gives the text of tokens as they come, in pieces that are whole characters."""
    held: list[int] = []
    shown = ""
    for token in tokens:
        held.append(token)
        text = tokenizer.decode(held)
        # A character's bytes may be spread over tokens; until they are whole the decoder writes U+FFFD.
        if text.endswith("\ufffd") and len(held) < 16:
            continue
        if len(text) > len(shown):
            yield text[len(shown) :]
        # The last token stays as context: some decoders drop a space at the very start.
        held, shown = [token], tokenizer.decode([token])
    if held:
        rest = tokenizer.decode(held)
        if len(rest) > len(shown):
            yield rest[len(shown) :]


def _context(decoder: Any) -> int | None:
    spec = getattr(decoder, "spec", None)
    return spec.context if spec is not None else getattr(decoder, "context", None)


@torch.no_grad()
def _next_logits(decoder: Any, ids: Sequence[int], cache: Any) -> Tensor:
    # no_grad, not inference_mode: rotary tables that grow in here must still serve a later training step.
    hidden = decoder.hidden(torch.tensor([ids]), cache=cache)
    return decoder.logits(hidden[0, -1]).float()


def _choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> int:
    if temperature <= 0 or top_k == 1:
        return int(logits.argmax())
    if top_k is not None and top_k < logits.numel():
        floor = logits.topk(top_k).values[-1]
        logits = logits.masked_fill(logits < floor, -torch.inf)
    odds = (logits / temperature).softmax(-1)
    if top_p is not None and top_p < 1:
        ranked, order = odds.sort(descending=True)
        # A token stays when those before it do not yet hold top_p: the likeliest always stays.
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= top_p, 0.0)
        return int(order[torch.multinomial(ranked, 1, generator=generator)])
    return int(torch.multinomial(odds, 1, generator=generator))

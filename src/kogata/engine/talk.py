"""A conversation with a model: what was said so far, in its chat format, and its next answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kogata.core.errors import DataError
from kogata.engine.chat import Renderer, Unfit
from kogata.engine.chat_template import Template, chatml
from kogata.engine.generate import generate_tokens, pieces
from kogata.engine.load import LoadedModel

RESERVE = 64
"""Tokens of the context that are left for an answer at least."""


class Talk:
    """A conversation.

    Args:
        loaded: a causal language model.
        renderer: writes messages in its chat format.
        system: stands before every question; None for what the template itself puts there.
        tokens: of an answer at most.
        temperature: see `generate_tokens`.
        seed: decides the draws; each answer has its own.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        renderer: Renderer,
        *,
        system: str | None = None,
        tokens: int = 512,
        temperature: float = 0.7,
        seed: int = 0,
    ) -> None:
        self.loaded, self.renderer = loaded, renderer
        self.system, self.tokens, self.temperature, self.seed = system, tokens, temperature, seed
        self.messages: list[dict[str, str]] = []
        self.forgotten = 0
        """Messages that no longer fit into the context, the oldest first."""
        self._answers = 0

    def say(self, text: str) -> Iterator[str]:
        """Gives the model's answer in pieces; what was said of it stays, also where nobody reads on.

        Raises:
            Unfit: not even the question alone fits into the context.
        """
        self.messages.append({"role": "user", "content": text})
        try:
            ids = self._ids()
        except Unfit:
            self.messages.pop()
            raise
        self._answers += 1
        answer = {"role": "assistant", "content": ""}
        self.messages.append(answer)
        stops = (*self.renderer.stop_ids, *self.loaded.end_ids)
        made = generate_tokens(
            self.loaded.decoder,
            ids,
            max_tokens=self._room(len(ids)),
            temperature=self.temperature,
            seed=self.seed * 1_000_003 + self._answers,
            end_id=stops,
        )
        for piece in pieces(self.loaded.tokenizer, made):
            answer["content"] += piece
            yield piece

    def again(self) -> None:
        """Forgets everything that was said."""
        self.messages.clear()
        self.forgotten = 0

    def _room(self, used: int) -> int:
        context = self.renderer.context
        return self.tokens if context is None else max(1, min(self.tokens, context - used))

    def _ids(self) -> list[int]:
        """Renders what fits; the oldest questions go first, with their answers."""
        context = self.renderer.context
        while True:
            said = self.messages[self.forgotten :]
            told = [{"role": "system", "content": self.system}] if self.system else []
            ids = self.renderer.prompt_ids([*told, *said])
            reserve = 0 if context is None else min(RESERVE, self.tokens, context // 4)
            if context is None or len(ids) + reserve <= context:
                return ids
            if len(said) == 1:
                raise Unfit(
                    "the question is longer than the model reads",
                    where="chat",
                    found=f"{len(ids)} tokens",
                    expected=f"at most {context - reserve}",
                    remedy="ask a shorter one",
                )
            self.forgotten += 2


def renderer_of(loaded: LoadedModel, adapter: Path | None = None) -> Renderer:
    """Makes the renderer of a model that is to be talked to.

    Args:
        loaded: the model.
        adapter: the folder of the adapter that was put on it; it may hold a chat format of its own.

    Raises:
        DataError: it is no causal language model, or its chat format cannot be used.
    """
    if loaded.source.role != "decoder":
        raise DataError(
            "this model cannot talk",
            where=loaded.source.name,
            found=f"a model of the role {loaded.source.role}",
            expected="a causal language model",
        )
    if loaded.folder.is_file():
        return Renderer(loaded.tokenizer, _of_gguf(loaded), context=loaded.context)
    place = loaded.folder
    if adapter is not None and (adapter / "tokenizer_config.json").is_file():
        place = adapter
    trained = _template_trained(adapter or loaded.folder)
    template = Template.load(place, "plain" if trained == "plain" else "auto")
    return Renderer(loaded.tokenizer, template, context=loaded.context)


def _template_trained(folder: Path) -> str | None:
    try:
        return json.loads((folder / "training.json").read_text(encoding="utf-8")).get("template")
    except (OSError, ValueError, AttributeError):
        return None


def _of_gguf(loaded: LoadedModel) -> Template:
    """Reads the chat format that a GGUF file carries; ChatML where it carries none."""
    from kogata.engine.gguf_header import read_header

    settings: dict[str, Any] = read_header(loaded.folder).settings
    words = settings.get("tokenizer.ggml.tokens") or []
    tokens = {}
    for name, peer in (("bos", "bos_token"), ("eos", "eos_token")):
        number = settings.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(number, int) and 0 <= number < len(words):
            tokens[peer] = str(words[number])
    if "eos_token" not in tokens:
        raise DataError(
            "the file names no end token",
            where=str(loaded.folder),
            expected="tokenizer.ggml.eos_token_id",
        )
    text = settings.get("tokenizer.chat_template")
    if not text:
        return Template(
            text=chatml(tokens["eos_token"], set(map(str, words))), source="chatml", tokens=tokens
        )
    template = Template(text=str(text), source="tokenizer", tokens=tokens)
    template.check(str(loaded.folder))
    return template

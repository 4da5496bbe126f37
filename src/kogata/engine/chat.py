"""Chat: an example becomes token ids with a loss weight each, its prefix equal to the generation prompt.

Where a turn begins and ends is told by position, never by looking for token ids: the text is rendered up to
the generation prompt of every answer and whole, and what lies between is the answer. Imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from kogata.core.errors import DataError
from kogata.engine.chat_template import TOOLS_AFTER, TOOLS_BEFORE, Template, TemplateFault
from kogata.engine.conversation import order_problem
from kogata.engine.examples import Example

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Turns = Literal["all", "last"]

_SEAM = "\ufdd0"
"""A character that is no text: where it stands, the text is encoded in two pieces."""


class Unfit(DataError):
    """One example cannot be learned from; `reason` is the same for all with its fault, `field` says where."""

    reason = "unfit"
    field = ""

    def because(self, reason: str, field: str = "") -> Unfit:
        """Sets the reason under which the row is counted, and its field."""
        self.reason, self.field = reason, field
        return self


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """An example as the model sees it.

    Attributes:
        ids: token ids.
        weights: what predicting `ids[i]` counts in the loss; 0 is not trained.
        turns_left_out: answers not trained here, because the template writes them otherwise once more
            follows; `Renderer.rows` gives them as rows of their own.
    """

    ids: list[int]
    weights: list[float]
    turns_left_out: int = 0

    @property
    def trained(self) -> int:
        """Counts the tokens with a weight."""
        return sum(weight > 0 for weight in self.weights)


class Renderer:
    """Renders examples for one tokenizer and template.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
        template: see `Template.load`.
        prompt_weight: the loss weight of what stands before an answer; 0 trains answers only.
        turns: train all assistant turns of a conversation, or the last one.
        context: the longest a row may be, in tokens; None for no limit.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template,
        *,
        prompt_weight: float = 0.0,
        turns: Turns = "all",
        context: int | None = None,
    ) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.prompt_weight, self.turns, self.context = prompt_weight, turns, context
        added = tokenizer.get_added_tokens_decoder()
        self.special = {number for number, token in added.items() if token.special}
        texts = sorted((added[number].content for number in self.special), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, texts)) or "(?!)")
        end = tokenizer.token_to_id(template.end)
        if end is None:
            raise DataError(
                "the end token is not in the vocabulary",
                where=f"the tokenizer's settings: {template.end!r}",
                expected="a token of tokenizer.json",
                remedy="use the tokenizer that belongs to the model",
            )
        self.end_id: int = end
        start = template.tokens.get("bos_token")
        start_id = tokenizer.token_to_id(start) if start else None
        self.start_id: int = end if start_id is None else start_id
        """Stands before a plain text, so that its first token is predicted from something."""
        joined = tokenizer.encode("\nx", add_special_tokens=False).ids
        apart = [number for piece in ("\n", "x") for number in self._plain(piece)]
        self._pieces_join = apart == joined

    def render(self, example: Example) -> Rendered:
        """Renders an example whole.

        Raises:
            Unfit: it is longer than the context, its roles are out of order, the template refuses it, or
                nothing in it would be trained.
        """
        if example.form == "text":
            return self._fitting(self._text(example), example)
        found, left = self._conversation(example)
        if not found.trained and left:
            raise self._rewritten(example)
        return self._fitting(found, example)

    def rows(self, example: Example) -> list[Rendered]:
        """Renders an example so that all of it is trained.

        A text longer than the context gives several rows; so does a conversation of whose answers the
        template writes some otherwise once more follows.

        Raises:
            Unfit: as `render`.
        """
        if example.form == "text":
            return self._windows(self._text(example))
        found, left = self._conversation(example)
        rows = [found] if found.trained else []
        rows += [self._answer(example, turn) for turn in left]
        return [self._fitting(row, example) for row in rows]

    def prompt_ids(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """Gives the ids to generate an answer from: what training put before that answer.

        Raises:
            Unfit: the template refuses the messages.
        """
        return self._prompt(*self._prepared(messages, tools))

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end an answer: what the template writes there, and the model's end token."""
        asked = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
        probe = self.render(Example(id="", form="messages", fields={"messages": asked}))
        last = max(at for at, weight in enumerate(probe.weights) if weight)
        return tuple(dict.fromkeys((probe.ids[last], self.end_id)))

    # Inside

    def _text(self, example: Example) -> Rendered:
        ids = self._plain(example.fields["text"])
        if not ids:
            raise self._nothing(example, "text")
        return Rendered(ids=[self.start_id, *ids, self.end_id], weights=[0.0, *[1.0] * (len(ids) + 1)])

    def _windows(self, whole: Rendered) -> list[Rendered]:
        if self.context is None or len(whole.ids) <= self.context:
            return [whole]
        # Neighbours share one token, so that every token but the first is predicted exactly once.
        step = max(1, self.context - 1)
        found = []
        for start in range(0, len(whole.ids) - 1, step):
            ids = whole.ids[start : start + step + 1]
            found.append(Rendered(ids=ids, weights=[0.0, *[1.0] * (len(ids) - 1)]))
        return found

    def _conversation(self, example: Example) -> tuple[Rendered, list[int]]:
        """Renders a conversation; gives the turns besides that must be rendered on their own."""
        messages, tools = self._checked(example)
        trained = self._trained(messages)
        text = self._apply(messages, tools, example.source)
        starts = self._starts(messages, tools, text)
        ids, offsets = self._encode(text, list(starts.values()))
        weights = [self.prompt_weight] * len(ids)
        left: list[int] = []
        for turn in trained:
            start = starts.get(turn)
            first = next((at for at, (a, _) in enumerate(offsets) if start is not None and a >= start), -1)
            joined = first >= 0 and not self._pieces_join
            if first < 0 or (joined and self._encode(text[:start], [])[0] != ids[:first]):
                left.append(turn)
                continue
            # Where the template rewrites an answer once more follows, its first end token says where it ends.
            after = text if turn == len(messages) - 1 else self._apply(messages[: turn + 1], tools, "")
            last = self._last(ids, offsets, first, len(after) if text.startswith(after) else -1, text)
            weights[first:last] = [1.0] * (last - first)
        if trained[-1:] == [len(messages) - 1] and trained[-1] not in left:
            if not self._ended(ids, offsets, text):
                ids.append(self.end_id)
                weights.append(1.0)
        weights[:1] = [0.0] * len(weights[:1])
        if not any(weight == 1.0 for weight in weights) and not left:
            raise self._nothing(example, "messages" if example.form == "messages" else "completion")
        return Rendered(ids=ids, weights=weights, turns_left_out=len(left)), left

    def _starts(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, text: str
    ) -> dict[int, int]:
        """Gives where each answer starts in the text: where the prompt that asks for it ends."""
        found = {}
        for turn, message in enumerate(messages):
            if message["role"] == "assistant":
                before = self._apply(messages[:turn], tools, "", prompt=True)
                if text.startswith(before):
                    found[turn] = len(before)
        return found

    def _prompt(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> list[int]:
        text = self._apply(messages, tools, "", prompt=True)
        return self._encode(text, list(self._starts(messages, tools, text).values()))[0]

    def _last(self, ids: list[int], offsets: list[tuple[int, int]], first: int, stop: int, text: str) -> int:
        """Finds where the trained tokens of a turn end: behind its end token, the last special one in it."""
        if stop < 0:
            return next((at + 1 for at in range(first, len(ids)) if ids[at] in self.special), len(ids))
        inside = [at for at in range(first, len(ids)) if offsets[at][0] < stop]
        for at in reversed(inside):
            if ids[at] in self.special:
                return at + 1 if not text[offsets[at][1] : stop].strip() else inside[-1] + 1
        return inside[-1] + 1 if inside else first

    def _ended(self, ids: list[int], offsets: list[tuple[int, int]], text: str) -> bool:
        """Says whether the text ends with a special token, white space aside."""
        at = next((at for at in reversed(range(len(ids))) if ids[at] in self.special), None)
        return at is not None and not text[offsets[at][1] :].strip()

    def _answer(self, example: Example, turn: int) -> Rendered:
        """Renders one answer behind exactly its generation prompt."""
        messages, tools = self._checked(example)
        content = str(messages[turn]["content"])
        if messages[turn].get("tool_calls") or not content.strip():
            raise self._rewritten(example)
        ids = self._prompt(messages[:turn], tools)
        answer, _ = self._encode(content, [])
        return Rendered(
            ids=[*ids, *answer, self.end_id],
            weights=[0.0, *[self.prompt_weight] * (len(ids) - 1), *[1.0] * (len(answer) + 1)],
        )

    def _checked(self, example: Example) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        messages = example.messages()
        problem = order_problem(messages)
        if problem:
            raise Unfit(
                problem.reason,
                where=f"{example.source}, {problem.field}",
                found=problem.found,
                expected=problem.expected,
                remedy=problem.remedy,
            ).because(problem.reason, problem.field)
        return self._prepared(messages, example.fields.get("tools"))

    def _prepared(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Makes control tokens in people's text text, and writes tools as text where the template cannot."""
        shown = [dict(message) for message in messages]
        given = list(tools) if tools else None
        called = any(message["role"] == "tool" or message.get("tool_calls") for message in shown)
        if (given or called) and not self.template.knows_tools:
            shown, given = write_tools(shown, given), None
        return self._safe(shown), self._safe(given)

    def _safe(self, value: Any) -> Any:
        if isinstance(value, str):
            plain = value.replace(_SEAM, "")
            return self._control.sub(lambda match: match[0][0] + _SEAM + match[0][1:], plain)
        if isinstance(value, dict):
            return {key: self._safe(item) for key, item in value.items()}
        return [self._safe(item) for item in value] if isinstance(value, list) else value

    def _trained(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        turns = [
            turn
            for turn, message in enumerate(messages)
            if message["role"] == "assistant" and message.get("weight", 1) != 0
        ]
        return turns[-1:] if self.turns == "last" else turns

    def _apply(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        where: str,
        *,
        prompt: bool = False,
    ) -> str:
        try:
            return self.template.apply(messages, tools, add_generation_prompt=prompt)
        except TemplateFault as fault:
            raise Unfit(
                "the chat template refuses the conversation",
                where=where or None,
                found=str(fault),
                remedy="change the conversation as it says, or use another template: template: chatml",
            ).because("refused by the chat template", "messages") from None

    def _plain(self, text: str) -> list[int]:
        """Encodes a text in which special tokens are text."""
        before = self.tokenizer.encode_special_tokens
        self.tokenizer.encode_special_tokens = True
        try:
            return self.tokenizer.encode(text, add_special_tokens=False).ids
        finally:
            self.tokenizer.encode_special_tokens = before

    def _encode(self, text: str, starts: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Encodes a rendered text, cut where answers start, so that none joins with its prompt's end."""
        cuts = {at for at, char in enumerate(text) if char == _SEAM} if _SEAM in text else set()
        if self._pieces_join:
            cuts |= set(starts)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        before = self.tokenizer.encode_special_tokens
        self.tokenizer.encode_special_tokens = False
        try:
            bounds = [0, *sorted(cuts - {0, len(text)}), len(text)]
            for start, stop in zip(bounds, bounds[1:], strict=False):
                skip = text.startswith(_SEAM, start)
                found = self.tokenizer.encode(text[start + skip : stop], add_special_tokens=False)
                ids += found.ids
                offsets += [(a + start + skip, b + start + skip) for a, b in found.offsets]
        finally:
            self.tokenizer.encode_special_tokens = before
        return ids, offsets

    def _fitting(self, row: Rendered, example: Example) -> Rendered:
        if self.context is not None and len(row.ids) > self.context:
            raise Unfit(
                "longer than the context",
                where=example.source,
                found=f"{len(row.ids)} tokens",
                expected=f"at most {self.context}",
                remedy="shorten the row, or give a larger context if the model has one",
            ).because("longer than the context")
        return row

    def _nothing(self, example: Example, field: str) -> Unfit:
        return Unfit(
            "nothing in it would be trained",
            where=f"{example.source}, {field}",
            found="no answer with a weight" if example.form == "messages" else "no token",
            expected="an answer",
            remedy="fill it in, or leave the row out",
        ).because("nothing to train", field)

    def _rewritten(self, example: Example) -> Unfit:
        return Unfit(
            "the chat template writes the answers otherwise than it asks for them",
            where=example.source,
            found="a generation prompt that does not begin the text of its answer",
            expected="answers that begin where the generation prompt ends",
            remedy="use another template: template: chatml",
        ).because("rewritten by the chat template", "messages")


def render(example: Example, tokenizer: Tokenizer, template: Template, **options: Any) -> Rendered:
    """Renders one example; see `Renderer` for the options. For many, make one Renderer."""
    return Renderer(tokenizer, template, **options).render(example)


def write_tools(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """Writes tools, calls and replies as plain text, for templates that know none."""
    found: list[dict[str, Any]] = []
    for given in messages:
        message = dict(given)
        if message["role"] == "tool":
            reply = f"<tool_response>\n{message['content']}\n</tool_response>"
            if found and found[-1]["role"] == "user":
                found[-1]["content"] += "\n" + reply
            else:
                found.append({"role": "user", "content": reply})
            continue
        calls = message.pop("tool_calls", None) or []
        written = [
            "<tool_call>\n" + json.dumps(call["function"], ensure_ascii=False) + "\n</tool_call>"
            for call in calls
        ]
        if written:
            message["content"] = "\n".join([*([message["content"]] if message["content"] else []), *written])
        found.append(message)
    if tools:
        listed = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools)
        told = TOOLS_BEFORE + listed + TOOLS_AFTER
        if found and found[0]["role"] == "system":
            found[0]["content"] = f"{found[0]['content']}\n\n{told}"
        else:
            found.insert(0, {"role": "system", "content": told})
    return found


__all__ = ["Rendered", "Renderer", "Template", "Turns", "Unfit", "render", "write_tools"]

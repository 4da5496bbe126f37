"""Chat templates: the jinja text that turns messages into what the model reads, run in a sandbox.

Imports neither torch nor transformers. Renders what transformers' `apply_chat_template` renders, which a
test checks; only today's date is a fixed one, so that a run repeats.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from kogata.core.errors import DataError
from kogata.engine.hf_folder import write_json

TODAY = datetime.datetime(2025, 1, 1)
"""What templates that write today's date are told."""
IM_START, IM_END = "<|im_start|>", "<|im_end|>"

TOOLS_BEFORE = "# Tools\n\nYou may call functions to help with the request. They are, one a line:\n<tools>"
TOOLS_AFTER = (
    '\n</tools>\n\nFor each call write a JSON object like this:\n<tool_call>\n{"name": NAME, "arguments": '
    "OBJECT}\n</tool_call>"
)

# Messages between marks, tools and calls in tags, as models with ChatML are used to.
_CHATML = """\
{%- set start = START %}
{%- set end = END %}
{%- set told = messages[0]['content'] if messages and messages[0]['role'] == 'system' else '' %}
{%- if told or tools %}
{{- start + 'system\\n' + told }}
{%- if tools %}
{{- ('\\n\\n' if told else '') + BEFORE }}
{%- for tool in tools %}
{{- '\\n' + (tool | tojson) }}
{%- endfor %}
{{- AFTER }}
{%- endif %}
{{- end + '\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message['role'] != 'system' or not loop.first %}
{%- if message['role'] == 'tool' %}
{{- start + 'user\\n<tool_response>\\n' + message['content'] + '\\n</tool_response>' }}
{%- else %}
{{- start + message['role'] + '\\n' + (message['content'] or '') }}
{%- for call in message['tool_calls'] or [] %}
{{- '\\n' if message['content'] or not loop.first }}
{{- '<tool_call>\\n{"name": ' + (call['function']['name'] | tojson) }}
{{- ', "arguments": ' + (call['function']['arguments'] | tojson) + '}\\n</tool_call>' }}
{%- endfor %}
{%- endif %}
{{- end + '\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- start + 'assistant\\n' }}
{%- endif %}
"""

Choice = Literal["auto", "chatml", "plain"]


class TemplateFault(Exception):
    """What a template says against the messages it was given."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """A chat template and the special tokens it may use.

    Attributes:
        text: the jinja text; empty where prompt and completion simply follow each other.
        source: `tokenizer` (its own), `chatml` (given to a base model) or `plain`.
        tokens: `bos_token`, `eos_token` … → their text.
    """

    text: str
    source: Literal["tokenizer", "chatml", "plain"]
    tokens: Mapping[str, str]

    @staticmethod
    def load(folder: Path, choice: Choice = "auto") -> Template:
        """Takes the template of a tokenizer's folder; ChatML where it has none.

        Raises:
            DataError: the template is no jinja or writes no assistant turn, or there is no end token.
        """
        settings = _settings(folder)
        tokens = _tokens(settings)
        if "eos_token" not in tokens:
            raise DataError(
                "the tokenizer names no end token",
                where=str(folder / "tokenizer_config.json"),
                found=f"eos_token: {settings.get('eos_token')!r}",
                expected="a token of its vocabulary; an answer has to end with it",
            )
        own = template_text(folder)
        if choice == "plain":
            return Template(text="", source="plain", tokens=tokens)
        if choice == "auto" and own is not None:
            template = Template(text=own, source="tokenizer", tokens=tokens)
            template.check(str(folder))
            return template
        known = {token["content"] for token in _json(folder / "tokenizer.json").get("added_tokens", [])}
        return Template(text=chatml(tokens["eos_token"], known), source="chatml", tokens=tokens)

    @property
    def said(self) -> str:
        """Says which template is used and why."""
        return {
            "tokenizer": "the tokenizer's own chat template",
            "chatml": "ChatML: the tokenizer has no chat template; it is saved with the result",
            "plain": "no chat template: prompt and completion follow each other",
        }[self.source]

    @cached_property
    def _compiled(self) -> Any:
        return _compile(self.text)

    def apply(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """Renders messages; with `add_generation_prompt` up to where the model is to write.

        Raises:
            TemplateFault: the template refuses the messages or cannot render them.
        """
        if self.source == "plain":
            return "".join(str(message["content"]) for message in messages)
        from jinja2 import TemplateError

        compiled = self._compiled
        try:
            return compiled.render(
                messages=[dict(message) for message in messages],
                tools=list(tools) if tools else None,
                add_generation_prompt=add_generation_prompt,
                **self.tokens,
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            raise TemplateFault(str(error) or type(error).__name__) from None

    def check(self, where: str) -> None:
        """Refuses a template that cannot teach: no jinja, no assistant turn.

        Raises:
            DataError: with what it writes instead.
        """
        from jinja2 import TemplateError

        asked, answered = "kogata asks", "kogata answers"
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        try:
            found = self.apply(messages)
        except TemplateFault as fault:
            found = f"it refuses a question and an answer: {fault}"
        except TemplateError as error:
            raise DataError(
                "the chat template is no jinja",
                where=where,
                found=str(error),
                remedy="mend chat_template.jinja, or use another: template: chatml",
            ) from None
        if answered not in found:
            raise DataError(
                "the chat template has no assistant turn",
                where=where,
                found=found[:200],
                expected="a text that holds the assistant's answer",
                remedy="mend chat_template.jinja, or use another: template: chatml",
            )

    @cached_property
    def knows_tools(self) -> bool:
        """Says whether the template writes tools, calls and replies of tools."""
        call = {"type": "function", "function": {"name": "kogatacall", "arguments": {"a": "kogatavalue"}}}
        tool = {"type": "function", "function": {"name": "kogatatool", "description": "d", "parameters": {}}}
        messages = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "name": "kogatacall", "content": "kogatareply"},
            {"role": "assistant", "content": "a"},
        ]
        try:
            found = self.apply(messages, [tool])
        except TemplateFault:
            return False
        return all(word in found for word in ("kogatacall", "kogatavalue", "kogatatool", "kogatareply"))

    def save(self, folder: Path) -> None:
        """Writes the template beside a tokenizer, and the end of a ChatML turn as the token to stop at."""
        if self.source != "chatml":
            return
        (folder / "chat_template.jinja").write_text(self.text, encoding="utf-8")
        end = self.end
        path = folder / "tokenizer_config.json"
        settings = _json(path)
        settings.pop("chat_template", None)
        if end != self.tokens["eos_token"]:
            settings["eos_token"] = end
            self._save_stops(folder, end)
        write_json(path, settings)

    def _save_stops(self, folder: Path, end: str) -> None:
        path = folder / "generation_config.json"
        if not path.is_file():
            return
        added = _json(folder / "tokenizer.json").get("added_tokens", [])
        ids = {token["content"]: token["id"] for token in added}
        generation = _json(path)
        stated = generation.get("eos_token_id")
        others = stated if isinstance(stated, list) else [stated]
        stops = [ids[end], *(other for other in others if other is not None and other != ids[end])]
        write_json(path, generation | {"eos_token_id": stops})

    @cached_property
    def end(self) -> str:
        """The text of the token that ends an answer: ChatML's where it is in the vocabulary."""
        if self.source == "chatml" and _literal(IM_END) in self.text:
            return IM_END
        return self.tokens["eos_token"]


def chatml(eos_token: str, known: set[str]) -> str:
    """Writes the ChatML template for a vocabulary; without its end mark there, the model's end token ends."""
    end = IM_END if IM_END in known else eos_token
    text = _CHATML.replace("START", _literal(IM_START)).replace("END", _literal(end))
    return text.replace("BEFORE", _literal(TOOLS_BEFORE)).replace("AFTER", _literal(TOOLS_AFTER))


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def template_text(folder: Path) -> str | None:
    """Reads a folder's own chat template: its file, else the default one of tokenizer_config.json."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    stated = _settings(folder).get("chat_template")
    if isinstance(stated, list):
        named = {item.get("name"): item.get("template") for item in stated}
        stated = named.get("default") or next(iter(named.values()), None)
    return stated if isinstance(stated, str) and stated.strip() else None


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _settings(folder: Path) -> dict[str, Any]:
    return _json(folder / "tokenizer_config.json")


def _tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in settings.items():
        value = value.get("content") if isinstance(value, Mapping) else value
        if name.endswith("_token") and isinstance(value, str):
            found[name] = value
    return found


@lru_cache
def _compile(text: str) -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Reads `{% generation %}` blocks as what stands in them; where turns lie is told by position."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **more: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **more)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = TODAY.strftime
    return environment.from_string(text)

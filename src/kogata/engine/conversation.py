"""Conversations: messages in every common spelling become one form, and their order is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
_ALIASES = {
    "human": "user", "question": "user", "prompter": "user",
    "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "ai": "assistant",
    "answer": "assistant", "function_call": "assistant",
    "developer": "system",
    "function": "tool", "observation": "tool", "function_response": "tool", "tool_response": "tool",
}  # fmt: skip
_KEPT = ("name", "tool_call_id", "weight", "reasoning_content")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with one row, in which field."""

    field: str
    reason: str
    """A few words that are the same for all rows with this fault."""
    found: str
    expected: str
    remedy: str


def read_messages(value: Any, name: str = "messages") -> list[dict[str, Any]] | Problem:
    """Reads a list of messages: `role`/`content` as OpenAI writes them, or `from`/`value` as ShareGPT does.

    Args:
        value: the field's value; JSON in a text is read.
        name: the field's name, for the problem.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            return Problem(
                field=name,
                reason="messages are no JSON",
                found=_short(value) + f" ({error})",
                expected='a list: [{"role": "user", "content": "…"}, …]',
                remedy="write the conversation as a JSON list of messages",
            )
    if not isinstance(value, list) or not value:
        return Problem(
            field=name,
            reason="no list of messages",
            found=_short(value),
            expected='a list: [{"role": "user", "content": "…"}, …]',
            remedy="give each conversation as a list of messages with role and content",
        )
    found: list[dict[str, Any]] = []
    for number, message in enumerate(value):
        read = _message(message, f"{name}[{number}]")
        if isinstance(read, Problem):
            return read
        found.append(read)
    return found


def _message(message: Any, where: str) -> dict[str, Any] | Problem:
    if not isinstance(message, Mapping):
        return Problem(
            field=where,
            reason="a message is no object",
            found=_short(message),
            expected='{"role": "user", "content": "…"}',
            remedy="give every message a role and a content",
        )
    said = message.get("role", message.get("from"))
    role = _ALIASES.get(str(said).lower(), str(said).lower())
    if role not in ROLES:
        return Problem(
            field=f"{where}.role",
            reason="unknown role",
            found=_short(said),
            expected=f"one of {', '.join(ROLES)}",
            remedy="rename the role",
        )
    made: dict[str, Any] = {"role": role}
    content = _content(message.get("content", message.get("value")), f"{where}.content")
    if isinstance(content, Problem):
        return content
    if str(said).lower() == "function_call":
        calls = _calls([content], f"{where}.value")
        content = ""
    else:
        calls = _calls(message.get("tool_calls"), f"{where}.tool_calls")
    if isinstance(calls, Problem):
        return calls
    if not content.strip() and not calls and role != "tool":
        return Problem(
            field=f"{where}.content",
            reason="an empty message",
            found=_short(message.get("content", message.get("value"))),
            expected="some text" + (", or tool_calls" if role == "assistant" else ""),
            remedy="fill it in, or leave the message out",
        )
    made["content"] = content
    if calls:
        made["tool_calls"] = calls
    return made | {key: message[key] for key in _KEPT if message.get(key) is not None}


def _content(value: Any, where: str) -> str | Problem:
    """Reads a text, or OpenAI's list of parts as long as all are text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else None
        if not isinstance(text, str) or not isinstance(value, list):
            kind = part.get("type") if isinstance(part, Mapping) else None
            return Problem(
                field=where,
                reason="not a text" if kind is None else f"a part of type {kind}",
                found=_short(value),
                expected="a text",
                remedy="write the content as a text; pictures and sound cannot be learned from",
            )
        texts.append(text)
    return "".join(texts)


def _calls(value: Any, where: str) -> list[dict[str, Any]] | Problem:
    """Reads tool calls; arguments become an object, which is what chat templates want."""
    if value in (None, "", []):
        return []
    found = []
    for number, call in enumerate(value if isinstance(value, list) else [value]):
        place = f"{where}[{number}]"
        call = _parsed(call)
        function = _parsed(call.get("function", call)) if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        arguments = _parsed(function.get("arguments", {})) if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not isinstance(arguments, Mapping):
            return Problem(
                field=place,
                reason="a tool call that cannot be read",
                found=_short(call),
                expected='{"function": {"name": "…", "arguments": {…}}}',
                remedy="give the call a name, and arguments as a JSON object",
            )
        made: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": dict(arguments)}}
        if isinstance(call, Mapping) and isinstance(call.get("id"), str):
            made["id"] = call["id"]
        found.append(made)
    return found


def read_tools(value: Any, name: str = "tools") -> list[dict[str, Any]] | Problem:
    """Reads the descriptions of tools: a list of objects, or JSON of one; empty where there are none."""
    tools = _parsed(value)
    if tools in (None, "", []):
        return []
    found = []
    for tool in tools if isinstance(tools, list) else [tools]:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            return Problem(
                field=name,
                reason="tools that cannot be read",
                found=_short(value),
                expected='a list: [{"type": "function", "function": {"name": "…", "parameters": {…}}}]',
                remedy="describe each tool by a name and its parameters",
            )
        found.append({"type": "function", "function": dict(function)})
    return found


def order_problem(messages: Sequence[Mapping[str, Any]], name: str = "messages") -> Problem | None:
    """Says where the order of roles is wrong: system first if at all, then user and assistant in turn."""
    before: Mapping[str, Any] | None = None
    for number, message in enumerate(messages):
        role = message["role"]
        if before is None:
            wanted = ("system", "user")
        elif before["role"] in ("system",):
            wanted = ("user",)
        elif before["role"] == "assistant":
            wanted = ("tool",) if before.get("tool_calls") else ("user",)
        else:
            wanted = ("assistant", "tool") if before["role"] == "tool" else ("assistant",)
        if role not in wanted:
            shown = " → ".join(str(other["role"]) for other in messages[: number + 1][-4:])
            return Problem(
                field=f"{name}[{number}].role",
                reason="wrong order of roles",
                found=f"{role} ({'… → ' if number > 3 else ''}{shown})",
                expected=" or ".join(wanted),
                remedy="user and assistant take turns, the user first; join or remove what is out of turn",
            )
        before = message
    if before is None or before["role"] != "assistant":
        return Problem(
            field=f"{name}[{max(0, len(messages) - 1)}].role",
            reason="no answer at the end",
            found=before["role"] if before else "no message",
            expected="assistant",
            remedy="end the conversation with the answer to be learned, or remove what follows it",
        )
    return None


def _parsed(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"

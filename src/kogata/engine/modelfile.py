"""An Ollama Modelfile beside a GGUF file: the chat template in Ollama's form, and where an answer stops.

Ollama has no jinja. What a template writes between the messages is found by rendering, and the pieces are
kept only where they give back what the template renders, with and without a system message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kogata.engine.chat_template import Template, TemplateFault, template_text

_SYSTEM, _ASKED, _ANSWERED, _MORE = "kogatasystem", "kogataasks", "kogataanswers", "kogatamore"


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """What a chat template writes before each message."""

    system: str
    """Before a system message, with which a conversation may begin."""
    after_system: str
    """Before the first question, behind a system message."""
    first: str
    """Before the first question, where there is no system message."""
    question: str
    """Before a later question."""
    answer: str
    """Before an answer, and at the end, where the model is to write."""

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Writes a conversation up to where the model answers."""
        found = ""
        for at, message in enumerate(messages):
            before = {"system": self.system, "assistant": self.answer, "user": self.question}[message["role"]]
            if message["role"] == "user" and at < 2:
                before = self.first if at == 0 else self.after_system
            found += before + message["content"]
        return found + self.answer

    def template(self) -> str | None:
        """Gives Ollama's template (Go's text/template); None where a piece cannot stand in one."""
        pieces = (self.system, self.after_system, self.first, self.question, self.answer)
        if any(mark in piece for piece in pieces for mark in ("{{", "}}", '"""')):
            return None
        user = f"{{{{ if eq $i 0 }}}}{self.first}{{{{ else if eq $i 1 }}}}{self.after_system}"
        user += f"{{{{ else }}}}{self.question}{{{{ end }}}}"
        return (
            "{{ range $i, $m := .Messages }}"
            f'{{{{ if eq $m.Role "system" }}}}{self.system}'
            f'{{{{ else if eq $m.Role "assistant" }}}}{self.answer}{{{{ else }}}}{user}{{{{ end }}}}'
            f"{{{{ $m.Content }}}}{{{{ end }}}}{self.answer}"
        )


def pieces_of(template: Template) -> Pieces | None:
    """Finds what a template writes between messages; None where it does more than that."""
    talk = [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": _ASKED},
        {"role": "assistant", "content": _ANSWERED},
        {"role": "user", "content": _MORE},
    ]
    try:
        whole = template.apply(talk, add_generation_prompt=True)
        alone = template.apply(talk[1:], add_generation_prompt=True)
        cut: list[str] = []
        for word in (_SYSTEM, _ASKED, _ANSWERED, _MORE):
            before, found, whole = whole.partition(word)
            if not found:
                return None
            cut.append(before)
        pieces = Pieces(
            system=cut[0],
            after_system=cut[1],
            first=alone.partition(_ASKED)[0],
            question=cut[3],
            answer=cut[2],
        )
        again = [talk[1:], talk, [*talk, {"role": "assistant", "content": "はい。"}, talk[1]]]
        same = all(pieces.render(one) == template.apply(one, add_generation_prompt=True) for one in again)
    except TemplateFault:
        return None
    return pieces if same and whole == pieces.answer else None


def modelfile(model: Path, gguf: str) -> str | None:
    """Writes the Modelfile of a model folder for a GGUF file of this name, both in one folder.

    None where the model has no chat template, or one that Ollama's form cannot express.
    """
    if template_text(model) is None:
        return None
    template = Template.load(model)
    pieces = pieces_of(template)
    text = None if pieces is None else pieces.template()
    if text is None:
        return None
    return f'FROM ./{gguf}\nTEMPLATE """{text}"""\nPARAMETER stop "{template.end}"\n'

"""Modelfiles: Ollama's template writes what the chat template writes, or there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import write_small_tokenizer

from kogata.engine.chat_template import Template, chatml
from kogata.engine.hf_folder import write_json
from kogata.engine.modelfile import modelfile, pieces_of

TOKENS = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}
WITH_DEFAULT = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TAGS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + eos_token }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST] ' }}{% endif %}{% endfor %}"
)
TALK = [
    {"role": "user", "content": "海は何色？"},
    {"role": "assistant", "content": "blue"},
    {"role": "user", "content": "and snow?"},
]
SYSTEM = [{"role": "system", "content": "短く答える。"}]


def of(text: str) -> Template:
    return Template(text=text, source="tokenizer", tokens=TOKENS)


@pytest.mark.parametrize("text", [chatml("<|im_end|>", {"<|im_end|>"}), WITH_DEFAULT, TAGS])
def test_the_pieces_write_what_the_template_writes(text: str) -> None:
    template = of(text)
    pieces = pieces_of(template)
    assert pieces is not None
    for talk in (TALK, TALK[:1], SYSTEM + TALK, SYSTEM + TALK[:1]):
        assert pieces.render(talk) == template.apply(talk, add_generation_prompt=True)


def test_ollama_s_template() -> None:
    pieces = pieces_of(of(WITH_DEFAULT))
    assert pieces is not None and pieces.template() == (
        '{{ range $i, $m := .Messages }}{{ if eq $m.Role "system" }}<|im_start|>system\n'
        '{{ else if eq $m.Role "assistant" }}<|im_end|>\n<|im_start|>assistant\n'
        "{{ else }}{{ if eq $i 0 }}<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n"
        "{{ else if eq $i 1 }}<|im_end|>\n<|im_start|>user\n{{ else }}<|im_end|>\n<|im_start|>user\n{{ end }}"
        "{{ end }}{{ $m.Content }}{{ end }}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        WITH_DEFAULT.replace("message['content']", "message['content'].upper()"),
        WITH_DEFAULT.replace("'<|im_end|>'", "('<|im_end|>' if loop.index < 3 else '<|end|>')"),
        "{{ raise_exception('no') }}",
        WITH_DEFAULT.replace("You help.", "You help with {{ and }}."),
    ],
    ids=["changes words", "counts turns", "refuses", "braces"],
)
def test_what_cannot_be_expressed_gives_none(text: str) -> None:
    pieces = pieces_of(of(text))
    assert pieces is None or pieces.template() is None


def test_the_file(tmp_path: Path) -> None:
    write_small_tokenizer(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", {"eos_token": "<|endoftext|>"})
    assert modelfile(tmp_path, "model-q8_0.gguf") is None
    (tmp_path / "chat_template.jinja").write_text(chatml("<|endoftext|>", set()), encoding="utf-8")
    lines = (modelfile(tmp_path, "model-q8_0.gguf") or "").splitlines()
    assert lines[0] == "FROM ./model-q8_0.gguf" and lines[1].startswith('TEMPLATE """{{ range')
    assert lines[-1] == 'PARAMETER stop "<|endoftext|>"'

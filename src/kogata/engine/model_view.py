"""What a model makes of rows: its tokenizer, chat template and context, read without its weights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogata.engine.chat_template import Choice, Template
from kogata.engine.sources import Source, find_model

LONGEST_TEXT = 512
"""Tokens that an encoder reads at most, whatever its config allows."""
LONGEST_ROW = 2048
"""Tokens of the longest row that fine-tuning takes unless told."""


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """A model as far as reading rows is concerned.

    Attributes:
        name: as the user wrote it.
        role: `decoder` or `encoder`.
        tokenizer: a `tokenizers.Tokenizer`.
        template: how rows are written for it; None for an encoder.
        context: tokens of the longest row it takes.
    """

    name: str
    role: str
    tokenizer: Any
    template: Template | None
    context: int

    @staticmethod
    def of(name: str, revision: str | None = None, template: Choice = "auto") -> ModelView:
        """Finds a model and reads its tokenizer; of one on the hub, only the tokenizer's files come here.

        Raises:
            DataError, EnvironmentProblem: as `find_model`; the template or the tokenizer cannot be used.
        """
        from kogata.engine.load import load_tokenizer

        source = find_model(name, revision)
        with tempfile.TemporaryDirectory(prefix="kogata-tokenizer-") as spare:
            folder = _tokenizer_folder(source, Path(spare))
            tokenizer = load_tokenizer(folder)
            decoder = source.role == "decoder"
            chat = Template.load(folder, template) if decoder else None
        most = LONGEST_ROW if decoder else LONGEST_TEXT
        return ModelView(
            name=name,
            role=source.role,
            tokenizer=tokenizer,
            template=chat,
            context=min(source.context or most, most),
        )


def _tokenizer_folder(source: Source, spare: Path) -> Path:
    if source.kind == "gguf":
        from kogata.engine.gguf_header import read_header
        from kogata.engine.gguf_read import write_tokenizer

        assert source.path is not None
        write_tokenizer(read_header(source.path), spare)
        return spare
    if source.path is not None:
        return source.path
    from kogata.engine.model_hub import download_tokenizer

    return download_tokenizer(source)

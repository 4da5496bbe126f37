"""A text encoder with transformers' own head for tokens; its base runs apart, so that nothing is padded."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kogata.core.errors import RecipeError
from kogata.engine.encoder_stack import first_position
from kogata.engine.encoders import LONGEST, Encoder, buckets, pad, quietly, refuse_decoder
from kogata.engine.tag._pieces import Cutter, Pieces, Window
from kogata.engine.tag._task import Row, Scheme


class TokenEncoder:
    """transformers' module for token classification, in float32, and what cuts texts for it.

    Attributes:
        module: an `AutoModelForTokenClassification`.
        encoder: its base.
        head: what follows the base, the classifier last.
        cutter: cuts texts into windows of its context.
        scheme: the classes.
    """

    def __init__(self, module: Any, folder: Path, scheme: Scheme, context: int | None) -> None:
        from kogata.engine.load import load_tokenizer

        self.module, self.folder, self.scheme = module.eval(), folder, scheme
        most = int(getattr(module.config, "max_position_embeddings", None) or LONGEST)
        most = min(most - first_position(module.base_model), LONGEST)
        self.context = min(context or most, most)
        self._own = load_tokenizer(folder)
        """Of the `Encoder`, which cuts off what it does not read; windows are cut by another."""
        self._take_apart()
        self.cutter = Cutter(load_tokenizer(folder), self.context)
        self._check()

    def _take_apart(self) -> None:
        base = self.module.base_model
        self.encoder = Encoder(base, self._own, self.folder, self.context)
        self.head = nn.Sequential(*(part for part in self.module.children() if part is not base))

    @staticmethod
    def base(folder: Path, scheme: Scheme, context: int | None = None) -> TokenEncoder:
        """Loads the encoder that lies in a folder, with a new classifier.

        Raises:
            RecipeError: the folder holds a decoder, or an encoder whose head is not known here.
        """
        from kogata.engine.sources import find_model

        refuse_decoder(find_model(str(folder)))
        names = dict(enumerate(scheme.classes))
        labels: dict[str, Any] = {"id2label": names, "label2id": {name: at for at, name in names.items()}}
        # Parts of a head that the folder has not begin at random, always the same.
        torch.manual_seed(0)
        return TokenEncoder(_load(folder, **labels), folder, scheme, context)

    @staticmethod
    def saved(folder: Path, scheme: Scheme, context: int) -> TokenEncoder:
        """Loads what `EncoderTagger.save` wrote."""
        return TokenEncoder(_load(folder), folder, scheme, context)

    @property
    def classifier(self) -> nn.Linear:
        """The last layer, [classes, width]."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        return last

    def copy(self) -> TokenEncoder:
        """Gives an encoder of its own weights; what texts were cut into is shared."""
        other = copy.copy(self)
        other.module = copy.deepcopy(self.module)
        other._take_apart()
        return other

    def _check(self) -> None:
        """Refuses a module whose head is more than its parts one after another."""
        ids = torch.tensor([[*self.cutter.before, *[5, 6, 7][: self.cutter.room], *self.cutter.after]])
        ids = ids.clamp(max=self.module.config.vocab_size - 1)
        fits = isinstance(self.head[-1], nn.Linear) if len(self.head) else False
        if fits:
            with torch.no_grad():
                theirs = self.module(input_ids=ids).logits
                ours = self.head(self.module.base_model(input_ids=ids).last_hidden_state)
            fits = ours.shape == theirs.shape and bool((ours - theirs).abs().max() < 1e-4)
        if not fits:
            raise RecipeError(
                "this encoder's head for tokens is not known here",
                where="train.tag, slot model",
                found=str(self.module.config.model_type),
                expected="bert, roberta, xlm-roberta, camembert, modernbert, or one with a head like theirs",
                remedy="choose another encoder, or `method: features`, which needs none",
            )

    def windows(self, rows: Sequence[Row]) -> tuple[list[Pieces], list[tuple[int, Window]]]:
        """Cuts rows: the pieces of each, and (row number, window) of all."""
        pieces = self.cutter.pieces([row.text for row in rows])
        parts = [(at, window) for at, some in enumerate(pieces) for window in self.cutter.windows(some)]
        return pieces, parts

    @torch.no_grad()
    def hidden(self, windows: Sequence[Window], watch: Any = None) -> Iterator[tuple[int, Tensor]]:
        """Yields (window number, the classifier's input of its pieces that count [n, D]), in any order."""
        self.module.eval()
        before = self.head[:-1]
        done = 0
        for chosen in buckets([len(window.ids) for window in windows]):
            hidden = before(self.encoder.hidden(pad([windows[i].ids for i in chosen], self.encoder.pad_id)))
            for place, number in enumerate(chosen):
                window = windows[number]
                yield int(number), hidden[place, window.skip : window.skip + window.count]
            done += len(chosen)
            if watch is not None:
                watch(done, len(windows))

    @torch.no_grad()
    def logits(self, rows: Sequence[Row]) -> tuple[list[Pieces], list[Tensor]]:
        """Gives the pieces of rows and their scores [pieces, classes]."""
        pieces, parts = self.windows(rows)
        found = [torch.zeros(len(some), len(self.scheme.classes)) for some in pieces]
        for number, hidden in self.hidden([window for _, window in parts]):
            at, window = parts[number]
            found[at][window.first : window.first + window.count] = self.classifier(hidden)
        return pieces, found


def _load(folder: Path, **more: Any) -> Any:
    from transformers import AutoModelForTokenClassification

    given: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    with quietly():
        return AutoModelForTokenClassification.from_pretrained(folder, local_files_only=True, **given, **more)

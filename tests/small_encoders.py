"""Small random encoders as Hugging Face folders, tokenizer included, and labelled rows, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from kogata.core.artifact import Artifact, Kind
from kogata.engine.examples import Example, ExamplesWriter

WORDS = (
    "the a my card is lost stolen money payment transfer arrived pending when will how do i can you help "
    "please top up fee charged wrong refund cash atm pin blocked new app 猫 犬 が を は 好 き 走 る 食 べ"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_small_encoder(folder: Path, kind: str = "bert", seed: int = 0, **more: Any) -> Path:
    """Writes an encoder of 2 layers of width 32."""
    import transformers

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    sizes = {"vocab_size": len(vocabulary), "hidden_size": 32, "num_attention_heads": 2}
    sizes |= {"num_hidden_layers": 2, "intermediate_size": 64, "max_position_embeddings": 40}
    if kind == "modernbert":
        ids |= {"cls_token_id": 2, "sep_token_id": 3}
        sizes |= {"local_attention": 8, "global_attn_every_n_layers": 2}
    config = transformers.AutoConfig.for_model(kind, **{**sizes, **ids, **more})
    torch.manual_seed(seed)
    module = transformers.AutoModelForMaskedLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.15)
    module.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    names |= {"sep_token": "[SEP]", "mask_token": "[MASK]", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def encoder_artifact(folder: Path, kind: str = "bert", **more: Any) -> Artifact:
    """Writes a small encoder and gives it with the facts model.read would give."""
    from kogata.stages.model.read import Read

    write_small_encoder(folder, kind, **more)
    from kogata.core.receipt import Machine
    from kogata.core.stage import Share

    facts = Read(name=str(folder)).forecast({}, Machine(), Share()).facts
    return Artifact(kind=Kind.MODEL, digest="encoder", path=folder, facts=facts)


TOPICS = {
    "card": "my card is lost please help|the card is stolen|can you help my card is blocked|new card please",
    "transfer": "will the transfer arrived|my transfer is pending|how do i transfer money|transfer money",
    "猫": "猫 が 好 き|猫 は 走 る|猫 を 食 べ る|猫 が 走 る",
}
"""Label → texts, of words the small tokenizer knows."""


def rows(each: int = 8, start: int = 0) -> list[tuple[str, str]]:
    """Gives (text, label) rows, `each` of every label, all different."""
    fillers = ["please", "help", "app", "fee", "pin", "atm", "cash", "wrong", "a", "when", "how", "do"]
    found = []
    for label, texts in TOPICS.items():
        some = texts.split("|")
        for number in range(start, start + each):
            words = [fillers[(number * 5 + k) % len(fillers)] for k in range(number % 4)]
            found.append((" ".join([some[number % len(some)], *words]), label))
    return found


def examples_artifact(folder: Path, **splits: list[tuple[str, str]]) -> Artifact:
    """Writes labelled rows as an examples artifact: `train=rows(8), heldout=rows(2, 50)`."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = ExamplesWriter(folder)
    for split, some in splits.items():
        for number, (text, label) in enumerate(some):
            fields = {"text": text, "label": label}
            row = Example(
                id=f"{split}-{number}", form="label", source=f"{split}.csv:{number + 2}", fields=fields
            )
            writer.write(row, split)
    return Artifact(kind=Kind.EXAMPLES, digest="examples", path=folder, facts=writer.close())

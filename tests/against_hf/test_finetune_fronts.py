"""What stands before every text equals a text, equals peft's, and is trained as peft trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import random_decoder, small_spec, write_small_model

from kogata.core.errors import DataError, RecipeError
from kogata.engine.adapters import can_merge, merge, put_on
from kogata.engine.convert import load_decoder
from kogata.engine.finetune import prefix, prompt
from kogata.engine.objectives import TrainedTokens
from kogata.engine.rows import Rows
from kogata.nn.kernels import Kernels
from kogata.nn.packed import PackedHidden

IDS = torch.arange(2, 26)[None]
TOKENS = 5
TEXT = [7, 9, 11]
BOTH = pytest.mark.parametrize("module", [prompt, prefix], ids=["prompt", "prefix"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("models") / "qwen3"
    write_small_model(place, small_spec("qwen3", layers=2, head_dim=16))
    return place


def theirs(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def started(decoder: Any, module: Any, noise: float = 0.0) -> Any:
    """Puts a front on a decoder that starts as a text's ids, and shakes it."""
    settings = module.Settings(tokens=TOKENS, text="any")
    tuning = module.apply(decoder, settings, 0, lambda _: TEXT)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, weight in tuning.named():
            weight.add_(torch.randn(weight.shape, generator=generator) * noise)
    assert module.work(decoder.spec, settings).trained == sum(weight.numel() for _, weight in tuning.named())
    return tuning


@BOTH
@torch.no_grad()
def test_a_front_starts_as_its_text(module: Any) -> None:
    """The text is repeated up to its length; generation, batches and single tokens see the same."""
    from kogata.engine.generate import generate

    decoder = random_decoder(small_spec("llama", layers=2))
    text = torch.tensor((TEXT * 2)[:TOKENS])
    batch = torch.cat([IDS, IDS.flip(1)])
    whole = torch.cat([text.expand(2, -1), batch], 1)
    wanted = decoder(whole)[:, TOKENS:]
    wrote = generate(decoder, whole[0].tolist(), 6)
    started(decoder, module)
    assert float((decoder(batch) - wanted).abs().max()) < 1e-5
    assert float((decoder(batch[:, :1]) - wanted[:, :1]).abs().max()) < 1e-5
    assert generate(decoder, IDS[0].tolist(), 6) == wrote
    cache = decoder.new_cache(1, 30)
    decoder.hidden(IDS, cache=cache)
    cache.rewind(10)
    again = decoder.logits(decoder.hidden(IDS[:, 10:], cache=cache))
    assert float((again - wanted[:1, 10:]).abs().max()) < 1e-5
    assert not can_merge(decoder)


def test_without_a_text_the_seed_decides() -> None:
    rows = []
    for seed in (1, 1, 2):
        decoder = random_decoder(small_spec("llama", layers=1))
        prompt.apply(decoder, prompt.Settings(tokens=3), seed, lambda _: [])
        rows.append(decoder.front.rows.detach())
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])


@BOTH
@torch.no_grad()
def test_a_saved_front_in_peft(folder: Path, module: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from kogata.engine.generate import generate
    from kogata.engine.load import load_model

    decoder = load_decoder(folder)
    plain = decoder(IDS)
    started(decoder, module, 0.3).save(tmp_path, str(folder))
    ours = decoder(IDS)
    assert float((ours - plain).abs().max()) > 0.01
    found = peft.PeftModel.from_pretrained(theirs(folder), tmp_path).eval()(IDS).logits
    assert float((found[:, -IDS.shape[1] :] - ours).abs().max()) < 1e-4
    assert torch.equal(put_on(load_decoder(folder), tmp_path)(IDS), ours)
    loaded = load_model(tmp_path).decoder
    assert generate(loaded, [3, 4, 5], 6) == generate(decoder, [3, 4, 5], 6)
    other = load_decoder(folder)
    other.spec = small_spec("qwen3", layers=2, width=32, heads=2, kv_heads=1)
    with pytest.raises(DataError, match="for another model"):
        put_on(other, tmp_path)


@BOTH
@torch.no_grad()
def test_peft_s_own_front_is_read(folder: Path, module: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    kind = peft.PromptTuningConfig if module is prompt else peft.PrefixTuningConfig
    model = peft.get_peft_model(theirs(folder), kind(num_virtual_tokens=4, task_type="CAUSAL_LM")).eval()
    model.save_pretrained(tmp_path)
    wanted = model(IDS).logits[:, -IDS.shape[1] :]
    assert float((put_on(load_decoder(folder), tmp_path)(IDS) - wanted).abs().max()) < 1e-4


@BOTH
@pytest.mark.parametrize("path", ["kernels", "recomputed", "plain"])
def test_loss_and_gradients_are_peft_s(folder: Path, module: Any, path: str, tmp_path: Path) -> None:
    """Rows that begin alike, too: what they share is laid out once behind the front."""
    peft = pytest.importorskip("peft")
    decoder = load_decoder(folder)
    tuning = started(decoder, module, 0.3)
    tuning.save(tmp_path, str(folder))
    same = list(range(40, 52))
    rows = [same + [5, 6, 7, 8], same + [9, 10, 11], same + [20, 21, 22, 23, 24, 25]]
    weights = [[0.0] * 13 + [1.0] * (len(row) - 13) for row in rows]
    count = sum(map(sum, weights))
    batch = Rows(zip(rows, weights, strict=True)).pack([0, 1, 2])
    assert batch.shared >= 8
    hidden = PackedHidden(
        decoder, None if path == "plain" else Kernels.build(), recompute=path == "recomputed"
    )
    loss = TrainedTokens(hidden, tuning.first)(batch, 1 / count)
    loss.backward()
    model = peft.PeftModel.from_pretrained(theirs(folder), tmp_path)
    embedding = model.prompt_encoder["default"].embedding.weight.requires_grad_()
    total = torch.zeros(())
    for row in rows:
        logits = model(torch.tensor([row])).logits[0, -len(row) :]
        total = total + torch.nn.functional.cross_entropy(
            logits[12:-1], torch.tensor(row[13:]), reduction="sum"
        )
    (total / count).backward()
    assert float(loss.detach()) == pytest.approx(float(total.detach() / count), abs=1e-4)
    wanted = embedding.grad
    grads = [weight.grad for _, weight in tuning.named()]
    found = grads[0] if module is prompt else torch.stack(grads).permute(2, 0, 1, 3, 4).reshape(TOKENS, -1)
    assert float((found - wanted).abs().max()) <= 1e-3 * float(wanted.abs().max())


def test_windows_have_no_prefix_but_a_prompt() -> None:
    spec = small_spec("gemma3", layers=2, head_dim=16)
    with pytest.raises(RecipeError, match="see a text's beginning"):
        prefix.work(spec, prefix.Settings())
    decoder = random_decoder(spec)
    text = torch.tensor([(TEXT * 2)[:TOKENS]])
    with torch.no_grad():
        wanted = decoder(torch.cat([text, IDS], 1))[:, TOKENS:]
        started(decoder, prompt)
        assert float((decoder(IDS) - wanted).abs().max()) < 1e-4
        with pytest.raises(Exception, match="cannot be written"):
            merge(decoder)

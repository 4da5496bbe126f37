"""Packed documents equal documents one by one, loss and gradients, with kernels and without."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kogata.engine.finetune import freeze, full, ia3, lora
from kogata.engine.objectives import TrainedTokens
from kogata.engine.rows import Rows
from kogata.nn.decoder import Decoder
from kogata.nn.kernels import Kernels
from kogata.nn.packed import PackedHidden
from kogata.nn.spec import ModelSpec


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    torch.set_num_threads(1)
    built = Kernels.build()
    if built is None:
        pytest.skip("no C compiler")
    return built


def decoder(family: str, **more: Any) -> Decoder:
    sizes = {"vocab_size": 61, "layers": 3, "width": 32, "heads": 4, "kv_heads": 2, "ffn_width": 48}
    made = Decoder(ModelSpec.of_family(family, **{**sizes, "context": 32, "tied": True, **more}), seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.15)
    return made


def rows(shared: int = 0) -> Rows:
    """Makes rows of which the first `shared` tokens are the same."""
    generator = torch.Generator().manual_seed(0)
    beginning = torch.randint(1, 61, (shared,), generator=generator).tolist()
    rendered = []
    for length in (9, 5, 14, 7):
        ids = torch.randint(1, 61, (length,), generator=generator).tolist()
        weights = [0.0] * (shared + 3) + [1.0] * (length - 4) + [0.5]
        rendered.append((beginning + ids, weights))
    return Rows(rendered)


FAMILIES = [
    ("llama", {}),
    ("qwen3", {}),
    ("qwen2", {"tied": False}),
    ("arcee", {}),
    ("smollm3", {"rope_layers": (True, False, True)}),
    ("gemma3", {}),
]


def gradients(
    made: Decoder, tuning: Any, hidden: PackedHidden, parts: list[list[int]], shared: int = 0
) -> Any:
    data = rows(shared)
    objective = TrainedTokens(hidden, tuning.first)
    total = 0.0
    for _, weight in tuning.named():
        weight.grad = None
    for part in parts:
        loss = objective(data.pack(part), 0.1)
        loss.backward()
        total += float(loss.detach())
    return total, [weight.grad.clone() for _, weight in tuning.named()]


METHODS = {"lora": lora, "full": full, "ia3": ia3, "freeze": freeze}


@pytest.mark.parametrize(("family", "more"), FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_packed_equals_one_by_one(family: str, more: dict[str, Any], method: str, kernels: Kernels) -> None:
    """Also where all rows begin alike, and their beginning is computed once."""
    made = decoder(family, **more)
    module = METHODS[method]
    tuning = module.apply(made, module.Settings(), 0)
    if method in ("lora", "ia3"):
        with torch.no_grad():
            for _, weight in tuning.named():
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)) * 0.05)
    for shared in (0, 9):
        plain, wanted = gradients(made, tuning, PackedHidden(made, None), [[0], [1], [2], [3]], shared)
        for used in (kernels, None) if shared else (kernels,):
            hidden = PackedHidden(made, used, recompute=shared > 0)
            loss, found = gradients(made, tuning, hidden, [[0, 1, 2, 3]], shared)
            assert loss == pytest.approx(plain, rel=1e-5)
            for (name, _), one, two in zip(tuning.named(), found, wanted, strict=True):
                assert float((one - two).abs().max()) <= 2e-5 * max(1.0, float(two.abs().max())), name


def test_what_rows_begin_with_lies_there_once() -> None:
    data = rows(9)
    batch = data.pack([2, 0, 3])
    assert batch.shared >= 9 and batch.documents is not None
    assert batch.inputs.shape[1] == sum(map(data.inputs, (2, 0, 3))) - 2 * batch.shared
    assert float(batch.weights.sum()) == pytest.approx(sum(map(data.weight, (2, 0, 3))))  # type: ignore[union-attr]
    assert rows(4).pack([0, 1]).shared == 0, "a few tokens are not worth it"
    trained = Rows([([1] * 20, [0.0] * 5 + [1.0] * 15)] * 2)
    assert trained.shared([0, 1]) == 0, "what is trained is computed in every row"
    assert Rows([([1] * 20, [0.0] * 15 + [1.0] * 5)] * 2).shared([0, 1]) == 14


def test_the_loss_is_the_decoder_s_own(kernels: Kernels) -> None:
    made, data = decoder("llama").requires_grad_(False), rows()
    loss = 0.0
    for row in range(len(data)):
        batch = data.pack([row])
        logits = made(batch.inputs)[0]
        each = torch.nn.functional.cross_entropy(logits, batch.targets[0], reduction="none")
        assert batch.weights is not None
        loss += float((each * batch.weights[0]).sum())
    packed = TrainedTokens(PackedHidden(made, kernels))(data.pack([0, 1, 2, 3]), 1.0)
    assert float(packed) == pytest.approx(loss, rel=1e-5)


@torch.no_grad()
def test_work_counts_what_is_trained() -> None:
    for family, more in FAMILIES:
        for module in METHODS.values():
            made = decoder(family, **more)
            counted = module.work(made.spec, module.Settings())
            tuning = module.apply(made, module.Settings(), 0)
            assert counted.trained == sum(weight.numel() for _, weight in tuning.named())
            assert max(0, counted.first) == max(0, tuning.first)


def test_frozen_weights_get_no_gradient(kernels: Kernels) -> None:
    made = decoder("llama")
    tuning = lora.apply(made, lora.Settings(rank=2, top=1), 0)
    assert tuning.first == 2
    gradients(made, tuning, PackedHidden(made, kernels), [[0, 1]])
    trained = {id(weight) for _, weight in tuning.named()}
    for name, weight in made.named_parameters():
        assert (weight.grad is not None) == (id(weight) in trained), name


CHANGES = [
    (lora, {"rank": 4, "dora": True}),
    (lora, {"rank": 4, "init": "pissa"}),
    (lora, {"rank": 4, "rslora": True}),
    (lora, {"rank": 4, "layers": ["v_proj"]}),
    (ia3, {}),
]


@torch.no_grad()
@pytest.mark.parametrize(
    ("module", "more"), CHANGES, ids=lambda value: getattr(value, "PEFT_TYPE", str(value))
)
def test_variants_merge_to_what_they_compute(module: Any, more: dict[str, Any]) -> None:
    from kogata.engine.adapters import merge_checked

    made = decoder("qwen2")
    ids = torch.arange(1, 13)[None]
    before = made(ids)
    tuning = module.apply(made, module.Settings(**more), 0)
    assert float((made(ids) - before).abs().max()) < 1e-4, "an untrained adapter changes nothing"
    with torch.no_grad():
        for _, weight in tuning.named():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)) * 0.1)
    changed = made(ids)
    assert float((changed - before).abs().max()) > 1e-2
    assert merge_checked(made, ids) < 1e-4
    assert float((made(ids) - changed).abs().max()) < 1e-3

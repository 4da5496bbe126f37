"""Our low-rank changes equal peft's: first loss, gradients, adapters saved either way, merged models."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from small_models import small_spec, write_small_model

from kogata.core.errors import DataError
from kogata.engine.adapters import fingerprint, merge_checked, put_on, write_adapter
from kogata.engine.convert import load_decoder, save_decoder
from kogata.engine.finetune import ia3, lora, sparse
from kogata.engine.hf_folder import write_json
from kogata.engine.objectives import TrainedTokens
from kogata.engine.rows import Rows
from kogata.nn.kernels import Kernels
from kogata.nn.packed import PackedHidden

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

IDS = torch.arange(2, 26)[None]
CASES: list[dict[str, Any]] = [
    {"rank": 4},
    {"rank": 4, "rslora": True, "alpha": 6},
    {"rank": 2, "dora": True},
    {"rank": 4, "init": "pissa"},
    {"rank": 4, "layers": ["q_proj", "v_proj", "up_proj"], "top": 2},
]
ALL = [
    *((lora, case) for case in CASES),
    (ia3, {}),
    (ia3, {"top": 2}),
    (sparse, {"rank": 3, "top": 3}),
    (sparse, {"form": "scattered", "rank": 2}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("models") / "llama"
    write_small_model(place, small_spec("llama", tied=True))
    return place


def theirs(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def tuned(folder: Path, settings: dict[str, Any], module: Any = lora) -> tuple[Any, Any]:
    """Gives our decoder with a changed adapter on it."""
    decoder = load_decoder(folder)
    tuning = module.apply(decoder, module.Settings(**settings), 0)
    if tuning.begin is not None:
        with torch.enable_grad(), TemporaryDirectory() as place:
            tuning.begin(lambda _: decoder(IDS).square().sum().backward(), Path(place) / "chosen.npy")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, weight in tuning.named():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return decoder, tuning


@pytest.mark.parametrize(
    ("module", "settings"), ALL, ids=lambda value: getattr(value, "PEFT_TYPE", str(value))
)
@torch.no_grad()
def test_a_saved_adapter_in_peft(folder: Path, module: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    decoder, tuning = tuned(folder, settings, module)
    tuning.save(tmp_path, str(folder))
    loaded = peft.PeftModel.from_pretrained(theirs(folder), tmp_path).eval()
    plain = theirs(folder)(IDS).logits
    ours = decoder(IDS)
    assert float((ours - plain).abs().max()) > 0.01
    assert float((loaded(IDS).logits - ours).abs().max()) < 1e-4
    from kogata.engine.generate import generate
    from kogata.engine.load import load_model

    wrote = generate(decoder, [3, 4, 5], 6)
    assert generate(load_model(tmp_path).decoder, [3, 4, 5], 6) == wrote
    again = put_on(load_decoder(folder), tmp_path)
    # By the size of the logits: products with wide vectors round otherwise than narrow ones.
    assert float((again(IDS) - ours).abs().max()) < 1e-5 * float(ours.abs().max())
    merge_checked(decoder, IDS)
    save_decoder(decoder, tmp_path / "merged", tokenizer_files_from=folder)
    assert float((theirs(tmp_path / "merged")(IDS).logits - ours).abs().max()) < 1e-4


def own_configs() -> list[Any]:
    lora_config = peft.LoraConfig(r=3, lora_alpha=5, target_modules="all-linear", task_type="CAUSAL_LM")
    names = ["k_proj", "v_proj", "down_proj"]
    return [
        lora_config,
        peft.IA3Config(target_modules=names, feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
        peft.ShiraConfig(r=2, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM", random_seed=3),
    ]


@pytest.mark.parametrize("config", own_configs(), ids=lambda config: str(config.peft_type))
@torch.no_grad()
def test_peft_s_own_adapter_is_read(folder: Path, tmp_path: Path, config: Any) -> None:
    model = peft.get_peft_model(theirs(folder), config).eval()
    for name, weight in model.named_parameters():
        if "lora_" in name or "ia3_" in name or "shira_" in name:
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    model.save_pretrained(tmp_path)
    assert float((put_on(load_decoder(folder), tmp_path)(IDS) - model(IDS).logits).abs().max()) < 1e-4


@pytest.mark.parametrize("kernels", [True, False])
def test_first_loss_and_gradients(folder: Path, kernels: bool) -> None:
    decoder, tuning = tuned(folder, {"rank": 4})
    lengths = (12, 7, 20)
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(1, 300, (n,), generator=generator).tolist() for n in lengths]
    weights = [[0.0] * 4 + [1.0] * (n - 4) for n in lengths]
    count = sum(map(sum, weights))
    hidden = PackedHidden(decoder, Kernels.build() if kernels else None)
    data = Rows(zip(rows, weights, strict=True))
    loss = TrainedTokens(hidden)(data.pack([0, 1, 2]), 1 / count)
    loss.backward()

    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(theirs(folder), config)
    names = dict(model.named_parameters())
    pairs = []
    for target in lora.targets(decoder):
        module = target.module
        for peer, (i, at, start, stop) in zip(target.pieces, module.parts(), strict=True):
            for letter, value, grad in (
                ("A", module.a, slice(i * 4, i * 4 + 4)),
                ("B", module.b, slice(at, at + stop - start)),
            ):
                other = names[f"base_model.model.{peer}.lora_{letter}.default.weight"]
                other.data.copy_(value[grad].detach())
                pairs.append((f"{peer}.{letter}", value.grad[grad], other))
    longest = max(lengths)
    ids = torch.zeros(3, longest, dtype=torch.long)
    labels = torch.full((3, longest), -100)
    mask = torch.zeros(3, longest, dtype=torch.long)
    for at, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        ids[at, :n] = torch.tensor(row)
        labels[at, 4:n] = torch.tensor(row)[4:]
        mask[at, :n] = 1
    found = model(input_ids=ids, attention_mask=mask, labels=labels)
    found.loss.backward()
    assert float(loss.detach()) == pytest.approx(float(found.loss.detach()), abs=1e-4)
    for name, ours, other in pairs:
        size = float(other.grad.abs().max())
        assert float((ours - other.grad).abs().max()) <= 1e-3 * size + 1e-8, name


@pytest.mark.parametrize("sizes", [{"layers": 3}, {"width": 32, "heads": 2, "kv_heads": 1}])
def test_an_adapter_for_another_base(folder: Path, tmp_path: Path, sizes: dict[str, Any]) -> None:
    _, tuning = tuned(folder, {"rank": 2})
    tuning.save(tmp_path / "a", "base")
    write_small_model(tmp_path / "other", small_spec("llama", tied=True, **sizes))
    with pytest.raises(DataError, match="for another model"):
        put_on(load_decoder(tmp_path / "other"), tmp_path / "a")


def test_an_adapter_for_another_base_of_the_same_shape(folder: Path, tmp_path: Path) -> None:
    _, tuning = tuned(folder, {"rank": 2})
    tuning.save(tmp_path / "a", "base")
    write_json(tmp_path / "a" / "training.json", {"base_fingerprint": fingerprint(load_decoder(folder))})
    write_small_model(tmp_path / "other", small_spec("llama", tied=True), seed=9)
    put_on(load_decoder(folder), tmp_path / "a")
    with pytest.raises(DataError, match="for another base"):
        put_on(load_decoder(tmp_path / "other"), tmp_path / "a")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"peft_type": "LOHA"}, "of this kind"),
        ({"modules_to_save": ["lm_head"]}, "cannot be read here"),
        ({"bias": "all"}, "biases"),
    ],
)
def test_what_cannot_be_read_is_said(
    folder: Path, tmp_path: Path, more: dict[str, Any], expected: str
) -> None:
    config = {"r": 2, "lora_alpha": 4, **more}
    write_adapter(tmp_path, "LORA", None, config, {"x": torch.zeros(1)})
    with pytest.raises(DataError, match=expected):
        put_on(load_decoder(folder), tmp_path)

"""Time of a training step with windows against full attention: in turn, the FLOP ratio beside it.

8 layers x 256; one full layer in eight, windows of 256 elsewhere. Also the decode cache, and the time of a
new token after 2,048 and 8,192 tokens for the gated delta rule without and with a full layer. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from kogata.engine.optimisers import hold_gains
from kogata.nn.decoder import Decoder
from kogata.nn.fused import FusedHidden
from kogata.nn.kernels import Kernels
from kogata.nn.losses import linear_cross_entropy
from kogata.nn.mixers import read_pattern
from kogata.nn.spec import ModelSpec

WINDOWS = [{"window": {"size": 256}}] * 7 + ["full"]
PATTERNS = {"full": ["full"], "windows": WINDOWS}
VOCAB = 4096


def spec_of(pattern: list, context: int, family: str = "qwen3", layers: int = 8) -> ModelSpec:
    """Makes the spec of a pattern."""
    mixers, settings = read_pattern(pattern, layers)
    return ModelSpec.of_family(
        family, vocab_size=VOCAB, layers=layers, width=256, heads=4, ffn_width=704, context=context,
        mixers=mixers, mixer_settings=settings, tied=False,
    )  # fmt: skip


class Step:
    """Forward and backward pass of one sequence."""

    def __init__(self, spec: ModelSpec, kernels: Kernels | None) -> None:
        self.decoder = Decoder(spec, seed=0)
        hold_gains(self.decoder)
        self.kernels = kernels
        self.hidden = FusedHidden(self.decoder, kernels) if kernels else self.decoder.hidden
        self.ids = torch.randint(0, VOCAB, (1, spec.context), generator=torch.Generator().manual_seed(0))

    def seconds(self) -> float:
        """Takes one step and says how long it took."""
        began = time.perf_counter()
        for parameter in self.decoder.parameters():
            parameter.grad = None
        hidden = self.hidden(self.ids)
        linear_cross_entropy(
            hidden, self.decoder.head_weight, self.ids, scale=1 / self.ids.numel(), kernels=self.kernels
        ).backward()
        return time.perf_counter() - began


@torch.no_grad()
def token_seconds(pattern: list, lengths: tuple[int, ...], count: int) -> dict[int, float]:
    """Times new tokens after so many; the median of `count`."""
    spec = spec_of(pattern, max(lengths) + count, family="kogata")
    decoder = Decoder(spec, seed=0).eval()
    found = {}
    for length in lengths:
        cache = decoder.new_cache(1, length + count)
        decoder.hidden(torch.zeros(1, length, dtype=torch.long), cache=cache)
        times = []
        for _ in range(count):
            began = time.perf_counter()
            decoder.logits(decoder.hidden(torch.zeros(1, 1, dtype=torch.long), cache=cache))
            times.append(time.perf_counter() - began)
        found[length] = statistics.median(times)
    return found


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="also 16,384 tokens, and more rounds")
    size.add_argument("--quick", action="store_true", help="4,096 tokens, two rounds; the default")
    chosen = parser.parse_args()
    kernels = Kernels.build()
    found: dict = {"threads": torch.get_num_threads(), "lengths": {}}
    for length in (4096, 16_384) if chosen.full else (4096,):
        specs = {name: spec_of(pattern, length) for name, pattern in PATTERNS.items()}
        steps = {name: Step(spec, kernels) for name, spec in specs.items()}
        times: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(6 if chosen.full else 3):
            for name, step in steps.items():
                took = step.seconds()
                if turn:
                    times[name].append(took)
        medians = {name: statistics.median(values) for name, values in times.items()}
        found["lengths"][length] = {
            "seconds": times,
            "faster": medians["full"] / medians["windows"],
            "flop_ratio": specs["full"].flops_per_token(length) / specs["windows"].flops_per_token(length),
            "cache": specs["windows"].cache_bytes(length) / specs["full"].cache_bytes(length),
        }
    count = 64 if chosen.full else 24
    for name, pattern in (("gated_delta", ["gated_delta"]), ("with full", ["gated_delta"] * 7 + ["full"])):
        times_by_length = token_seconds(pattern, (2048, 8192), count)
        found[f"token seconds, {name}"] = {
            **times_by_length, "ratio": times_by_length[8192] / times_by_length[2048],
        }  # fmt: skip
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

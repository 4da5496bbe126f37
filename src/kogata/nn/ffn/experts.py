"""Feed-forward blocks of which each token uses only some: a small mixture of experts.

`ffn_width` is split over `count` experts of ffn_width / `top` each, so that a token pays for one feed-forward
part of ffn_width while count / top times as many weights are there to choose from.

Pays when: memory is plenty and time is short: more weights at nearly the same products.
Hurts when: the file size is what counts, or width is small: an expert's products then are too small to be
    fast.
Source: Switch Transformer (arXiv 2101.03961) for the balance; softmax after the choice: Mixtral
    (arXiv 2401.04088); a balance for each sequence: DeepSeek-V2 (arXiv 2405.04434, section 2.2.3).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, model_validator

from kogata.core.errors import RecipeError
from kogata.core.variants import VariantSettings

if TYPE_CHECKING:
    from torch import Tensor

    from kogata.nn.spec import ModelSpec


class Settings(VariantSettings):
    """How many experts there are, and how many a token uses."""

    count: int = Field(default=4, ge=2, le=64)
    """Experts."""
    top: int = Field(default=1, ge=1)
    """Experts of one token."""
    balance: float = Field(default=0.01, ge=0)
    """Weight of the loss that spreads each sequence's tokens over the experts."""

    @model_validator(mode="after")
    def _fewer(self) -> Settings:
        if self.top >= self.count:
            raise ValueError(f"top is below count; found {self.top} of {self.count}")
        return self


def expert_width(spec: ModelSpec, settings: Settings) -> int:
    """Gives the inner size of one expert."""
    if spec.ffn_width % settings.top:
        raise RecipeError(
            "the model's shape does not fit", where="model.ffn_width", found=str(spec.ffn_width),
            expected=f"a multiple of the {settings.top} experts of a token",
        )  # fmt: skip
    return spec.ffn_width // settings.top


def matrices(spec: ModelSpec, settings: Settings, *, active: bool) -> list[tuple[int, int]]:
    """Lists rows and columns of all experts' matrices, or of those one token is multiplied with."""
    inner = expert_width(spec, settings)
    one = [(inner, spec.width), (inner, spec.width), (spec.width, inner)]
    return one * (settings.top if active else settings.count) + [(settings.count, spec.width)]


def linears(spec: ModelSpec, settings: Settings) -> list[tuple[int, int]]:
    """Lists rows and columns of the linear layers, fused matrices as one."""
    inner = expert_width(spec, settings)
    return [(2 * inner, spec.width), (spec.width, inner)] * settings.count + [(settings.count, spec.width)]


@cache
def _feed_forward() -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    from kogata.nn.ffn.swiglu import FeedForward as Gated
    from kogata.nn.ffns import ffn_settings
    from kogata.nn.linear import linear

    class Balanced(torch.autograd.Function):
        """Adds the gradient of a loss that nobody else sees."""

        @staticmethod
        def forward(ctx: Any, x: Tensor, loss: Tensor, weight: float) -> Tensor:
            ctx.weight = weight
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, None]:
            return outputs[0], outputs[0].new_tensor(ctx.weight), None

    class FeedForward(nn.Module):
        """Sends each token to its experts. Linear layers: `router`, each expert's `gate_up` and `down`.

        Attributes:
            part_of_step: the share of the whole step's tokens that the next forward pass sees. Whoever adds
                up several passes sets it: the balance of a step then weighs the same however it is cut.
        """

        outputs = ()

        def __init__(self, spec: ModelSpec, layer: int) -> None:
            super().__init__()
            settings = ffn_settings(spec)
            self.count, self.top, self.balance = settings.count, settings.top, settings.balance
            inner = expert_width(spec, settings)
            self.router = linear(spec.width, settings.count)
            self.experts = nn.ModuleList(Gated(spec, layer, width=inner) for _ in range(settings.count))
            self.part_of_step = 1.0

        def parts(self) -> dict[str, dict[str, int]]:
            """States which layers are several matrices: our layer → their names and rows, in order."""
            return {
                f"experts.{number}.{name}": rows
                for number, expert in enumerate(self.experts)
                for name, rows in cast(Gated, expert).parts().items()
            }

        def forward(self, x: Tensor) -> Tensor:
            """Works on x [B, T, D]."""
            flat = x.reshape(-1, x.shape[-1])
            scores = self.router(flat)
            best, chosen = scores.topk(self.top, -1)
            shares = best.softmax(-1) if self.top > 1 else scores.softmax(-1).gather(1, chosen)
            y = torch.zeros_like(flat)
            for number, expert in enumerate(self.experts):
                # Also without a token: its weights then have a gradient of zeros, as every weight has one.
                rows, slot = (chosen == number).nonzero(as_tuple=True)
                out = expert(flat.index_select(0, rows)) * shares[rows, slot, None]
                y = y.index_add(0, rows, out)
            if self.training and self.balance and torch.is_grad_enabled():
                y = Balanced.apply(y, self._uneven(scores, chosen, x.shape), self.balance * self.part_of_step)
            return y.view(x.shape)

        def _uneven(self, scores: Tensor, chosen: Tensor, shape: torch.Size) -> Tensor:
            """Measures how unevenly each sequence's tokens are spread, 1 where they are even; the mean."""
            tokens = shape[-2] if len(shape) > 2 else len(scores)
            odds = scores.softmax(-1).view(-1, tokens, self.count).mean(1)
            load = F.one_hot(chosen, self.count).view(-1, tokens * self.top, self.count).float().mean(1)
            return self.count * (odds * load).sum(-1).mean()

    return FeedForward


def __getattr__(name: str) -> Any:
    # The module class is made when it is asked for: plans read this file and never import torch.
    if name == "FeedForward":
        return _feed_forward()
    raise AttributeError(name)

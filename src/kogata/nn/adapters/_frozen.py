"""A frozen linear layer that something trained is put on."""

from __future__ import annotations

from torch import Tensor, nn

from kogata.nn.held import hold_of


class OnLinear(nn.Module):
    """Holds a linear layer, freezes it, and looks like it from outside.

    Args:
        base: the linear layer.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.hold, self.own_bias = hold_of(base)
        self.in_features: int = base.in_features  # type: ignore[assignment]
        self.out_features: int = base.out_features  # type: ignore[assignment]

    @property
    def weight(self) -> Tensor:
        """The frozen weight [out, in], for whoever asks for its type and place."""
        return self.hold.wide()

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias [out]."""
        return self.own_bias

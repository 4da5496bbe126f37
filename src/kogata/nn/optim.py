"""Optimisers in float32: Muon for matrices, AdamW for the rest, one object for both.

`torch.optim.Muon` casts to bfloat16, which runs hundreds of times slower than float32 on a CPU without
bf16 hardware; so the iteration here is our own, batched over all matrices of one shape, and rounds where the
processor has such products.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kogata.nn.products import factor

POLAR = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233002987),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Polar Express (Amsel et al. 2025, arXiv 2505.16932): coefficients of the odd quintic, by iteration."""


def local(tensor: Tensor) -> Tensor:
    """Gives this process's part of a tensor that is divided over several; any other as it is."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def orthogonalise(matrices: Tensor, iterations: int = 4) -> Tensor:
    """Moves every singular value of each matrix [n, r, c], r <= c, near one.

    Where factors of products are rounded to 16 bits, all of it is, as in the authors' own code.
    """
    x = factor(matrices / (matrices.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-7))
    # The last coefficients are the ones that settle; a short run keeps them and drops some before.
    for a, b, c in (*POLAR[: iterations - 1], POLAR[-1]):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.float()


def even_rows(moves: Tensor, squares: Tensor, beta: float) -> None:
    """Divides each row by the root of its squares' average, in place; each matrix keeps its length.

    Args:
        moves: [n, r, c].
        squares: [n, r, 1], or [n, 1, c] where rows lie across; is brought up to date.
        beta: of the average.
    """
    across = 1 if squares.shape[1] == 1 and moves.shape[1] > 1 else 2
    squares.lerp_(moves.square().mean(across, keepdim=True), 1 - beta)
    length = moves.norm(dim=(1, 2), keepdim=True)
    moves.mul_((squares + 1e-12).rsqrt_())
    moves.mul_(length / moves.norm(dim=(1, 2), keepdim=True).clamp_(min=1e-12))


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One matrix for Muon: some rows of a parameter (fused projections are several matrices)."""

    name: str
    parameter: Tensor
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, the smaller first: matrices of one shape are worked on together."""
        rows, columns = self.stop - self.start, self.parameter.shape[1]
        return min(rows, columns), max(rows, columns)

    @property
    def turned(self) -> bool:
        """Says whether it has more rows than columns."""
        return self.stop - self.start > self.parameter.shape[1]

    def of(self, whole: Tensor) -> Tensor:
        """Gives this matrix's part of a tensor shaped like the parameter, the smaller side first."""
        part = whole[self.start : self.stop]
        return part.mT if self.turned else part


@dataclass(kw_only=True)
class Muon:
    """Momentum, orthogonalised: each step has the same size in every direction of a matrix.

    Args:
        matrices: what to train.
        lr: size of a step before the schedule's factor; an r x c matrix moves by lr · √max(1, r/c).
        momentum: of the gradient's average, Nesterov's form; lower by 0.1 over the first `warmup` share.
        iterations: of the orthogonalisation, 3 to 5.
        weight_decay: share lost per unit of lr.
        rows: of the average of each row's squared moves, by whose root its moves are divided, so that all
            rows move alike (NorMuon, arXiv 2510.05491); 0 leaves them as they are.
    """

    matrices: Sequence[Matrix]
    lr: float = 0.02
    momentum: float = 0.95
    iterations: int = 4
    weight_decay: float = 0.0
    warmup: float = 0.15
    rows: float = 0.0
    buffers: list[Tensor] = field(init=False)
    seconds: list[Tensor] = field(init=False)
    """Averages of the rows' squares, by stack; empty where rows are left as they are."""
    stacks: list[list[Matrix]] = field(init=False)

    def __post_init__(self) -> None:
        # Rows lie across where a matrix is turned: these are then stacked apart.
        stacks: dict[tuple[tuple[int, int], bool], list[Matrix]] = {}
        for matrix in self.matrices:
            stacks.setdefault((matrix.shape, bool(self.rows) and matrix.turned), []).append(matrix)
        self.stacks = list(stacks.values())
        self.buffers = [
            torch.zeros(len(stack), *shape, device=stack[0].parameter.device)
            for (shape, _), stack in stacks.items()
        ]
        self.seconds = [
            torch.zeros(len(stack), *((1, shape[1]) if turned else (shape[0], 1)), device=buffer.device)
            for ((shape, turned), stack), buffer in zip(stacks.items(), self.buffers, strict=True)
            if self.rows
        ]

    @torch.no_grad()
    def step(self, factor: float, progress: float) -> None:
        """Takes one step at lr · factor."""
        lr = self.lr * factor
        momentum = (
            self.momentum - 0.1 * max(0.0, 1 - progress / self.warmup) if self.warmup else self.momentum
        )
        for number, (stack, buffer) in enumerate(zip(self.stacks, self.buffers, strict=True)):
            grads = torch.stack([m.of(m.parameter.grad) for m in stack])  # type: ignore[arg-type]
            buffer.lerp_(grads, 1 - momentum)
            moves = orthogonalise(grads.lerp_(buffer, momentum), self.iterations)
            if self.rows:
                even_rows(moves, self.seconds[number], self.rows)
            targets = [m.of(m.parameter) for m in stack]
            if self.weight_decay:
                torch._foreach_mul_(targets, 1 - lr * self.weight_decay)
            sizes = [-lr * (max(m.shape) / min(m.shape)) ** 0.5 if m.turned else -lr for m in stack]
            scaled = moves.mul_(torch.tensor(sizes, device=moves.device)[:, None, None])
            torch._foreach_add_(targets, list(scaled.unbind(0)))

    def state(self) -> dict[str, Tensor]:
        """Gives the momentum by matrix, and the rows' averages where there are such."""
        held = {"momentum": self.buffers, "rows": self.seconds or [None] * len(self.stacks)}
        return {
            f"{name}.{m.name}.{m.start}": tensor[i]
            for name, tensors in held.items()
            for stack, tensor in zip(self.stacks, tensors, strict=True)
            if tensor is not None
            for i, m in enumerate(stack)
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        for name, held in self.state().items():
            held.copy_(state[name])

    def scale_lr(self, factor: float) -> None:
        """Multiplies the learning rate (a probe's outcome)."""
        self.lr *= factor


@dataclass(kw_only=True)
class Group:
    """Parameters that AdamW trains alike."""

    named: list[tuple[str, Tensor]]
    lr: float
    weight_decay: float = 0.0
    every: int = 1
    """Steps from one update to the next; between them its gradients are not even computed."""


@dataclass(kw_only=True)
class AdamW:
    """AdamW with decoupled decay, one fused kernel per group.

    Args:
        groups: parameters with their learning rates.
        betas: of the two averages.
        eps: added to the root of the second.
    """

    groups: Sequence[Group]
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-10
    steps: int = 0
    first: list[list[Tensor]] = field(init=False)
    second: list[list[Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self.first = [[torch.zeros_like(local(p)) for _, p in group.named] for group in self.groups]
        self.second = [[torch.zeros_like(local(p)) for _, p in group.named] for group in self.groups]

    def due(self, group: Group) -> bool:
        """Says whether the coming step moves a group: the first one does, then each `every`-th."""
        return self.steps % group.every == 0

    @torch.no_grad()
    def step(self, factor: float, progress: float) -> None:
        """Takes one step at each due group's lr · factor; averages and their bias count a group's own."""
        for group, first, second in zip(self.groups, self.first, self.second, strict=True):
            weights = [local(p) for _, p in group.named]
            if not weights or not self.due(group):
                continue
            device = weights[0].device
            torch._fused_adamw_(
                weights,
                [local(p.grad) for _, p in group.named if p.grad is not None],
                first,
                second,
                [],
                [torch.tensor(float(self.steps // group.every + 1), device=device) for _ in weights],
                amsgrad=False,
                lr=group.lr * factor,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=group.weight_decay,
                eps=self.eps,
                maximize=False,
            )
        self.steps += 1

    def state(self) -> dict[str, Tensor]:
        """Gives both averages by parameter, and the count of steps."""
        held = {"steps": torch.tensor(self.steps)}
        for group, first, second in zip(self.groups, self.first, self.second, strict=True):
            for (name, _), m, v in zip(group.named, first, second, strict=True):
                held[f"first.{name}"], held[f"second.{name}"] = m, v
        return held

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        for name, held in self.state().items():
            held.copy_(state[name])
        self.steps = int(state["steps"])

    def scale_lr(self, factor: float) -> None:
        """Multiplies the learning rates (a probe's outcome)."""
        for group in self.groups:
            group.lr *= factor


@dataclass(kw_only=True)
class Optimiser:
    """Several optimisers as one: each trains its own parameters.

    Args:
        parts: by name, for the state.
    """

    parts: Mapping[str, Muon | AdamW]

    @property
    def lr(self) -> float:
        """The learning rate people mean: Muon's where there is one, else the largest of AdamW's groups."""
        muon = self.parts.get("muon")
        if isinstance(muon, Muon):
            return muon.lr
        return max((g.lr for p in self.parts.values() if isinstance(p, AdamW) for g in p.groups), default=0.0)

    def parameters(self) -> list[Tensor]:
        """Lists what is trained, each once, in a fixed order."""
        found: dict[int, Tensor] = {}
        for part in self.parts.values():
            named: Iterable[Tensor]
            if isinstance(part, Muon):
                named = (m.parameter for m in part.matrices)
            else:
                named = (p for g in part.groups for _, p in g.named)
            found |= {id(p): p for p in named}
        return list(found.values())

    def begin(self) -> list[Tensor]:
        """Lists what the coming step moves, and stops asking for the gradients of the rest."""
        resting: set[int] = set()
        for part, group in self._seldom():
            due = part.due(group)
            for _, parameter in group.named:
                parameter.requires_grad_(due)
                if not due:
                    resting.add(id(parameter))
        return [parameter for parameter in self.parameters() if id(parameter) not in resting]

    def end(self) -> None:
        """Leaves every parameter asking for its gradient again."""
        for _, group in self._seldom():
            for _, parameter in group.named:
                parameter.requires_grad_(True)

    def _seldom(self) -> list[tuple[AdamW, Group]]:
        parts = [part for part in self.parts.values() if isinstance(part, AdamW)]
        return [(part, group) for part in parts for group in part.groups if group.every > 1]

    def step(self, factor: float, progress: float) -> None:
        """Takes one step; `factor` is the schedule's, `progress` the share of training done."""
        for part in self.parts.values():
            part.step(factor, progress)

    def clear(self) -> None:
        """Forgets the gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Gives everything that the next step depends on."""
        return {f"{name}.{key}": t for name, part in self.parts.items() for key, t in part.state().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        for name, part in self.parts.items():
            prefix = f"{name}."
            part.load({k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)})


def matrices_of(name: str, parameter: Tensor, rows: Sequence[int]) -> list[Matrix]:
    """Cuts a fused parameter into the matrices it is made of, by their rows."""
    cut, start = [], 0
    for size in rows:
        cut.append(Matrix(name=name, parameter=parameter, start=start, stop=start + size))
        start += size
    assert start == parameter.shape[0], f"{name} has {parameter.shape[0]} rows, its parts {start}"
    return cut

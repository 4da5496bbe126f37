"""Wiring: which step's artifact each slot takes, and which neighbours run fused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kogata.core.artifact import Kind
from kogata.core.errors import RecipeError
from kogata.core.recipe import Step
from kogata.core.registry import suggest
from kogata.core.stage import SameAs, Slot

Inputs = dict[str, str | list[str] | None]


class Wiring:
    """Walks a recipe's steps in order and answers what each slot takes.

    A slot takes the one artifact of its kinds that no later step has replaced (a step replaces an input
    when it makes the same kind from it). With several candidates the recipe must say `use`; so it must where
    an optional slot is to take what the same stage made before.
    """

    def __init__(self) -> None:
        self.made: dict[str, Kind] = {}
        """Label → kind, in recipe order."""
        self.by: dict[str, str] = {}
        """Label → the stage's name; not of what a parent's run made."""
        self.replaced: set[str] = set()
        self.bases: dict[str, str] = {}
        """Adapter's label → the label of the model it was trained on."""

    def inputs_of(self, step: Step) -> Inputs:
        """Gives slot → label for one step.

        Raises:
            RecipeError: nothing fits, several fit, or `use` names something unfit.
        """
        takes = type(step.stage).takes
        for slot in step.use:
            if slot not in takes:
                near = suggest(slot, takes)
                raise RecipeError(
                    f"{step.label} has no input {slot!r}",
                    where=f"use of {step.label}",
                    expected=f"one of {', '.join(takes) or 'none'}",
                    remedy=f"did you mean {near!r}?" if near else None,
                )
        inputs: Inputs = {}
        for name, slot in takes.items():
            inputs[name] = self._slot(step, name, slot, inputs)
        self._not_untuned(step, inputs)
        return inputs

    def _slot(self, step: Step, name: str, slot: Slot, before: Inputs) -> str | list[str] | None:
        if name in step.use:
            asked = step.use[name]
            labels = asked if isinstance(asked, list) else [asked]
            if len(labels) > 1 and not slot.many:
                raise RecipeError(f"{step.label} takes one {name}", where="use", found=", ".join(labels))
            for label in labels:
                self._fits(step, name, slot, label)
            return labels if slot.many else labels[0]
        if slot.asked:
            return [] if slot.many else None
        candidates = [
            label for label, kind in self.made.items() if kind in slot.kinds and label not in self.replaced
        ]
        if slot.kinds == (Kind.ADAPTER,):
            # An adapter goes with its own base alone.
            given = before.values()
            candidates = [label for label in candidates if self.bases.get(label) in (None, *given)]
        if slot.optional and not slot.many:
            # Two of one stage are two tries, not one after the other; and a trial takes what it must alone.
            candidates = [label for label in candidates if self.by.get(label) not in (None, step.name)]
        if slot.many:
            if not candidates and not slot.optional:
                raise self._nothing(step, name, slot)
            return candidates
        if not candidates:
            if slot.optional:
                return None
            raise self._nothing(step, name, slot)
        if len(candidates) > 1:
            raise RecipeError(
                f"{step.label} could take its {name} from several stages",
                found=", ".join(candidates),
                remedy=f"say which: `use: {{{name}: {candidates[-1]}}}` among the settings of {step.label}",
            )
        return candidates[0]

    def _not_untuned(self, step: Step, inputs: Inputs) -> None:
        """Refuses a model without the adapter that was trained on it, unless the recipe asks for that."""
        takes = type(step.stage).takes
        if any(Kind.ADAPTER in slot.kinds for slot in takes.values()):
            return
        for name, slot in takes.items():
            tuned = [label for label, base in self.bases.items() if base == inputs[name]]
            if name in step.use or slot.kinds != (Kind.MODEL,) or not tuned:
                continue
            raise RecipeError(
                f"{step.label} would take the model as it was before {tuned[-1]}",
                where=f"input {name} of {step.label}",
                found=f"{tuned[-1]} makes an adapter, which {step.label} cannot take",
                expected="a whole model",
                remedy=f"set `merge: true` in {tuned[-1]}, or say `use: {{{name}: {inputs[name]}}}` in "
                f"{step.label} to take the model without it",
            )

    def _fits(self, step: Step, name: str, slot: Slot, label: str) -> None:
        if label not in self.made:
            near = suggest(label, self.made)
            raise RecipeError(
                f"{step.label} wants to use {label!r}, which no earlier stage is called",
                where=f"use of {step.label}",
                expected=f"one of {', '.join(self.made) or 'none'}",
                remedy=f"did you mean {near!r}?" if near else None,
            )
        if self.made[label] not in slot.kinds:
            raise RecipeError(
                f"{step.label} cannot take {label!r} as its {name}",
                found=f"{label} makes a {self.made[label]}",
                expected=" or ".join(slot.kinds),
            )

    def _nothing(self, step: Step, name: str, slot: Slot) -> RecipeError:
        wanted = " or ".join(slot.kinds)
        return RecipeError(
            f"nothing before {step.label} makes the {wanted} it needs",
            where=f"input {name} of {step.label}",
            found=", ".join(f"{label} ({kind})" for label, kind in self.made.items()) or "no earlier stage",
            remedy=_maker(slot.kinds),
        )

    def place(self, step: Step, inputs: Inputs, kind: Kind) -> None:
        """Records what a step makes and which input it replaces."""
        self.made[step.label], self.by[step.label] = kind, step.name
        makes = type(step.stage).makes
        for slot, labels in inputs.items():
            for label in labels if isinstance(labels, list) else [labels]:
                if label is not None and kind == Kind.ADAPTER and self.made[label] == Kind.MODEL:
                    self.bases[step.label] = label
                if label is not None and self.made[label] == kind:
                    same = isinstance(makes, SameAs) and makes.slot == slot
                    if same or not isinstance(makes, SameAs):
                        self.replaced.add(label)


def _maker(kinds: Sequence[Kind]) -> str | None:
    makers = {
        Kind.CORPUS: "data.read",
        Kind.EXAMPLES: "data.read with `kind: examples`",
        Kind.TOKENIZER: "tokenizer.train",
        Kind.TOKENS: "tokenizer.encode",
        Kind.MODEL: "train.pretrain or model.read",
    }
    named = [makers[kind] for kind in kinds if kind in makers]
    return f"put {' or '.join(named)} before it" if named else None


def fuse(steps: Sequence[Step], inputs: Mapping[str, Inputs]) -> dict[str, str]:
    """Says which per-document steps hand their documents straight to the next: label → next label.

    A step is fused when it and the next one work per document and nobody else takes what it makes.
    """
    takers: dict[str, list[str]] = {}
    for label, slots in inputs.items():
        for taken in slots.values():
            for source in taken if isinstance(taken, list) else [taken]:
                if source is not None:
                    takers.setdefault(source, []).append(label)
    fused: dict[str, str] = {}
    for first, second in zip(steps, steps[1:], strict=False):
        both = _streams(first, inputs) and _streams(second, inputs)
        if both and takers.get(first.label) == [second.label]:
            fused[first.label] = second.label
    return fused


def _streams(step: Step, inputs: Mapping[str, Inputs]) -> bool:
    return step.stage.streams() and sum(label is not None for label in inputs[step.label].values()) <= 1

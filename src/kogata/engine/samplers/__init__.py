"""Which text training samples, and how much each row counts. One way a file.

A way has `Settings` and `make(supply, curriculum, settings)`, which gives the run's sampler; where it only
changes how rows count it builds on the curriculum's own. One that does not go with every curriculum says with
`refuses(curriculum)` which, and with `CURRICULUM` which it takes where none is named.
"""

from __future__ import annotations

from kogata.core.errors import RecipeError
from kogata.core.registry import registry
from kogata.core.variants import Choice


def check_pair(curriculum: Choice, sampling: Choice, label: str) -> None:
    """Refuses a curriculum and a sampling that would both choose the windows; free of torch.

    Args:
        curriculum: as chosen.
        sampling: as chosen.
        label: of the stage, for the error.

    Raises:
        RecipeError: they do not go together.
    """
    refuses = getattr(sampling.variant, "refuses", None)
    if refuses is None or not refuses(curriculum):
        return
    names = registry.variant_names(curriculum.folder)
    fit = [name for name in names if not refuses(type(curriculum).of(name))]
    raise RecipeError(
        "two settings would choose what is seen next",
        where=f"stage {label}",
        found=f"`sampling: {sampling.name}`, and `curriculum: {curriculum.name}`",
        expected=f"with this sampling, curriculum {' or '.join(fit)}",
        remedy="take one of them out",
    )


def check_apart(curriculum: Choice, sampling: Choice, label: str) -> None:
    """Refuses documents kept apart where windows are chosen otherwise than in order; free of torch.

    Raises:
        RecipeError: naming what chooses them.
    """
    for setting in (sampling, curriculum):
        plain = setting.name == "proportional" if setting is sampling else not chooses_windows(curriculum)
        if not plain:
            raise RecipeError(
                "documents cannot be kept apart here",
                where=f"stage {label}, documents",
                found=setting.name,
                expected="sampling proportional, and a curriculum of whole windows in a shuffled order",
            )


def chooses_windows(curriculum: Choice) -> bool:
    """Says whether a curriculum chooses the windows itself, so that no source can be sampled from."""
    return not hasattr(curriculum.variant, "lengths")

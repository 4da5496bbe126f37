"""The tree of errors a user can cause.

KogataError
├── RecipeError        a recipe, a setting or a command line is wrong      (exit 2)
├── DataError          a file, row or field is wrong                       (exit 2)
├── ArtifactError      a sealed artifact is missing, damaged or unfit      (exit 2)
├── EnvironmentProblem disk, permission, missing package, no network       (exit 2)
├── Refused            the budget or a tolerance forbids it                (exit 3)
└── Stopped            Ctrl-C or SIGTERM: stopped cleanly, can be resumed  (exit 130, 143)
"""

from __future__ import annotations


class KogataError(Exception):
    """States what is wrong, where, what was expected and how to mend it.

    Args:
        what: the claim, one line ("unknown stage 'data.raed'").
        where: file, row, field or address.
        found: what stands there.
        expected: what should stand there.
        remedy: what to type or change.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        found: str | None = None,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.what, self.where, self.found = what, where, found
        self.expected, self.remedy = expected, remedy
        super().__init__(self.__str__())

    def __str__(self) -> str:
        lines = [self.what]
        for label, text in (
            ("at", self.where),
            ("found", self.found),
            ("expected", self.expected),
            ("remedy", self.remedy),
        ):
            if text:
                lines.append(f"  {label}: {text}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, str | None]:
        """Gives the parts by name, for `--json` and for the pipe of a worker."""
        return {
            "type": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "found": self.found,
            "expected": self.expected,
            "remedy": self.remedy,
        }

    @staticmethod
    def from_dict(parts: dict[str, str | None]) -> KogataError:
        """Builds the error again from `to_dict`."""
        kind = _KINDS.get(parts.get("type") or "", KogataError)
        rest = {key: parts.get(key) for key in ("where", "found", "expected", "remedy")}
        return kind(parts.get("what") or "error", **rest)


class RecipeError(KogataError):
    """A recipe, a setting or a command line is wrong."""


class DataError(KogataError):
    """A data file, a row or a field is wrong."""


class ArtifactError(KogataError):
    """A sealed artifact is missing, damaged or does not fit."""


class EnvironmentProblem(KogataError):
    """The computer cannot do it: disk, permission, a missing package, no network."""


class Refused(KogataError):
    """The budget or a tolerance forbids it."""

    exit_code = 3


class Stopped(KogataError):
    """Stopped cleanly by Ctrl-C or SIGTERM; the same command resumes."""

    exit_code = 130


_KINDS: dict[str, type[KogataError]] = {
    kind.__name__: kind
    for kind in (KogataError, RecipeError, DataError, ArtifactError, EnvironmentProblem, Refused, Stopped)
}

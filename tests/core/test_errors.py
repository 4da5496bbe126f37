"""Errors: parts by name, whole again after a pipe."""

import pytest

from kogata.core.errors import ArtifactError, DataError, KogataError, RecipeError, Refused, Stopped


@pytest.mark.parametrize("kind", [RecipeError, DataError, ArtifactError, Refused, Stopped, KogataError])
def test_an_error_survives_the_pipe(kind: type[KogataError]) -> None:
    error = kind(
        "列がない", where="rows.csv:3", found="本文", expected="text", remedy="columns: {text: 本文}"
    )
    again = KogataError.from_dict(error.to_dict())
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.exit_code == kind.exit_code


def test_the_message_names_all_parts() -> None:
    text = str(RecipeError("wrong", where="a:1", found="b", expected="c", remedy="d"))
    assert text.splitlines() == ["wrong", "  at: a:1", "  found: b", "  expected: c", "  remedy: d"]

"""Configurations of other programs, each with the rules that come of it: `pytest --bless tests/convert/test_pairs.py` writes these."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.convert.converting import converted
from tests.support.cases import with_each
from txmux_convert.writer import ConvertError

PAIRS = Path(__file__).parent / "pairs"


def rules_for(case: str) -> str:
    """Return the rules for a configuration, and what is only said of it."""
    try:
        output = converted(case.rstrip("\n") + "\n")
    except ConvertError as error:
        return f"# error: {error}\n\n"
    notes = [line.partition(": ")[2] for line in output.warnings]
    only_said = [note for note in notes if note.removeprefix("LOOK: ") not in output.text]
    return "".join([output.text, *(f"# said: {note}\n" for note in only_said), "\n"])


@pytest.mark.parametrize(
    "file", sorted(PAIRS.glob("*/*.cfg")), ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_rules(file: Path, assert_blessed: Callable[[Path, str], None]) -> None:
    assert_blessed(file.with_suffix(".ini"), with_each(file.read_text(), rules_for))

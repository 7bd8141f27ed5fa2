"""Wrong rules, and all that is said of them: `pytest --bless tests/rules/test_wrong.py` writes it below their lines."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rules.annotated import WRONG, WRONG_OF_FEATURES, annotated
from tests.support.cases import with_each


@pytest.mark.parametrize(
    "file", [*WRONG, *WRONG_OF_FEATURES], ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_messages(file: Path, assert_blessed: Callable[[Path, str], None]) -> None:
    assert_blessed(file, with_each(file.read_text(), annotated))

"""Configurations of other programs: each becomes rules without an error, or is refused in one line."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import tests.convert
from campaign.fuzz.files import no_files
from campaign.fuzz.target import Target, see
from tests.convert.converting import converted
from txmux_convert import Program
from txmux_convert.writer import ConvertError

_TESTS = Path(tests.convert.__path__[0])
_LEAST = 60


def target_of(program: Program, *words: str, also: Sequence[str] = ()) -> Target:
    """Make the target of one program.

    Args:
        program: Whose configurations.
        words: What is in them, beside the words of the tests.
        also: Packages that read them.
    """

    def check(data: bytes) -> None:
        with no_files():
            try:
                converted(data, program)
            except ConvertError as error:
                see("\n" not in str(error))

    def seeds() -> list[bytes]:
        texts = [text for text in _texts(program) if len(text) > _LEAST or "\n" in text]
        return [text.encode() for text in texts]

    pieces = {piece for text in _texts(program) if len(text) < _LEAST for piece in text.split()}
    known = sorted({*words, *(f"{piece} " for piece in pieces)})
    return Target(
        check, seeds, tuple(word.encode() for word in known), longest=2000, also=tuple(also)
    )


def _texts(program: str) -> list[str]:
    """Give the texts in the tests of a program's conversion, of which many are configurations."""
    found = {
        node.value
        for file in sorted((_TESTS / program).glob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return sorted(found)

"""Rules files: read, or refused with messages; then looked through for what is odd, and laid out."""

from __future__ import annotations

from pathlib import Path

from campaign.fuzz.files import no_files
from campaign.fuzz.target import Target, see
from tests.convert.converting import matchers
from tests.rules.reading.test_parser import PIECES, REQUIRED
from txmux.rules.lint.privileges import Privileges, missing_privileges
from txmux.rules.lint.warnings import closed_listeners, lint
from txmux.rules.problems import RulesError
from txmux.rules.reading.files import SourceFile
from txmux.rules.reading.layout import laid_out, meaning
from txmux.rules.reading.parser import errors_alone, parse
from txmux.rules.reading.sections import TABLES

_EXAMPLES = Path(__file__).parents[3] / "examples"
_PLACE = "/nonexistent/x.ini"


def _check(data: bytes) -> None:
    with no_files():
        _check_text(data.decode("utf-8", "replace"))


def _check_text(text: str) -> None:
    for problem in errors_alone(SourceFile(_PLACE, text), matchers()):
        assert problem.message
    try:
        rules = parse(text, _PLACE, matchers())
    except RulesError as error:
        see(error.problems)
        see(all(problem.message for problem in error.problems))
        return
    nothing = Privileges(1000, 1024, lambda _path, _mode: False)
    for found in (lint(rules), closed_listeners(rules), missing_privileges(rules, nothing)):
        assert all(problem.message for problem in found)
    after = laid_out(text)
    assert meaning(after) == meaning(text)
    assert laid_out(after) == after


def _seeds() -> list[bytes]:
    found = [file.read_bytes() for file in sorted(_EXAMPLES.rglob("*.ini"))]
    base = "".join(
        f"[{kind if kind == 'txmux' else f'{kind} {kind[0]}'}]\n"
        + "".join(f"{key} = {value}\n" for key, value in keys.items())
        for kind, keys in REQUIRED.items()
    )
    return [base.encode(), *(one for one in found if len(one) < TARGET.longest)]


_WORDS = (
    *(f"\n{key} = ".encode() for keys in TABLES.values() for key in keys),
    *(f" {piece} ".encode() for piece in PIECES if piece), b"\n[route r]\n", b"\n[backend b]\n",
    b"\n[listen l]\n", b"\n[txmux]\n",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=3000)

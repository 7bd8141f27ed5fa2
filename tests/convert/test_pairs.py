"""Configurations of other programs, each with the rules that come of it: `pytest --bless tests/convert/test_pairs.py` writes these."""

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from tests.convert.converting import converted
from tests.support.cases import cases_of, with_each
from tests.support.installed import names_missing
from txmux_convert.writer import ConvertError

PAIRS = Path(__file__).parent / "pairs"

EXPECTED = re.compile(r"^# (?:<port\d*> .*|soon|\d+ to be looked at)\n", re.MULTILINE)
"""What such a file says of clients."""

_PLACE = re.compile(r"<(\w+)(\.port)?>")
"""What is another one in each run of ``tests/interop/converted/test_served.py``, which has both programs serve such a file."""


def _placed(text: str) -> str:
    if not EXPECTED.search(text):
        return text
    numbers = count(1001)
    places = {"folder": "/folder"}

    def place(found: re.Match[str]) -> str:
        name, port = found.groups()
        if name not in places:
            places[name] = str(next(numbers))
        is_port = port or name.startswith("port") or name == "folder"
        return places[name] if is_port else f"127.0.0.1:{places[name]}"

    return _PLACE.sub(place, EXPECTED.sub("", text))


def rules_for(case: str) -> str:
    try:
        output = converted(_placed(case).rstrip("\n") + "\n", name="/nowhere/x.cfg")
    except ConvertError as error:
        return f"# error: {error}\n\n"
    notes = [line.partition(": ")[2] for line in output.warnings]
    only_said = [note for note in notes if note.removeprefix("LOOK: ") not in output.text]
    return "".join([output.text, *(f"# said: {note}\n" for note in only_said), "\n"])


@pytest.mark.parametrize(
    "file", sorted(PAIRS.glob("*/*.cfg")), ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_rules(file: Path, assert_blessed: Callable[[Path, str], None]) -> None:
    rules = file.with_suffix(".ini")
    known = iter(cases_of(rules.read_text()) if rules.exists() else ())

    def rules_now(case: str) -> str:
        before = next(known, "")
        return before if names_missing(before) else rules_for(case)

    assert_blessed(rules, with_each(file.read_text(), rules_now))

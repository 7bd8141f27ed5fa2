"""What the tests of the conversion share."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

from txmux.convert.formats import Conversion, convert
from txmux.convert.writer import ConvertError
from txmux.detection.registry import installed_matchers
from txmux.rules.reading.parser import parse

if TYPE_CHECKING:
    from txmux.convert.formats import Program
    from txmux.rules.model import Rules

__all__ = ["PORTS", "attempt", "converted", "rules_of"]

PORTS = {"daytime": 13, "ssh": 22, "xmpp-client": 5222}


def converted(text: str | bytes, program: Program | None = None, name: str = "x.cfg") -> Conversion:
    """Convert a text, and see to it that what comes out has no errors."""
    data = text if isinstance(text, bytes) else dedent(text).encode()
    found = convert(data, name, installed_matchers(), PORTS.get, program)
    parse(found.text, "rules.ini")
    return found


def rules_of(found: Conversion) -> Rules:
    """Read what came out of a conversion."""
    return parse(found.text, "rules.ini")


def attempt(text: str, program: Program) -> None:
    """Convert what may be no configuration; nothing may come of it but rules or the clear error."""
    try:
        converted(text.encode(errors="replace"), program)
    except ConvertError as error:
        if "\n" in str(error):
            raise AssertionError("an error is one line") from error

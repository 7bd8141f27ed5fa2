import functools
from textwrap import dedent

from txmux.detection.registry import installed_matchers
from txmux.rules.model import Rules
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse
from txmux_convert import Program
from txmux_convert.formats import Conversion, convert
from txmux_convert.writer import ConvertError

matchers = functools.cache(installed_matchers)  # looking for them takes longer than a conversion

PORTS = {"daytime": 13, "ssh": 22, "xmpp-client": 5222}


def converted(text: str | bytes, program: Program | None = None, name: str = "x.cfg") -> Conversion:
    data = text if isinstance(text, bytes) else dedent(text).encode()
    output = convert(data, name, matchers(), PORTS.get, program)
    rules_of(output)
    looks = [n for n, line in enumerate(output.text.split("\n"), 1) if line.startswith("# LOOK: ")]
    errors: list[int] = []
    try:
        parse(output.text, "rules.ini", matchers())
    except RulesError as error:
        errors = [problem.line for problem in error.problems]
    if errors != looks or output.has_looks != bool(looks):
        raise AssertionError(f"errors are in {errors}, and what is to be looked at in {looks}")
    return output


def rules_of(output: Conversion) -> Rules:
    return parse(output.text.replace("# LOOK:", "#"), "rules.ini", matchers())


def looks(output: Conversion) -> list[str]:
    return [line[8:] for line in output.text.splitlines() if line.startswith("# LOOK: ")]


def attempt(text: str, program: Program) -> None:
    """Convert what may be no configuration; nothing may come of it but rules or the clear error."""
    try:
        converted(text.encode(errors="replace"), program)
    except ConvertError as error:
        if "\n" in str(error):
            raise AssertionError("an error is one line") from error

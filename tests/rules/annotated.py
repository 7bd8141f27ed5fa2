"""Rules with what `txmux check` says of each line below it, in ``tests/rules/wrong`` and ``tests/features/NAME/wrong.ini``."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.cases import cases_of
from tests.support.installed import names_missing
from txmux.detection.registry import installed_matchers
from txmux.rules.lint.patterns import cut_signatures
from txmux.rules.lint.warnings import (
    closed_listeners,
    lint,
    slow_routes,
    unchecked_backends,
    warnings,
)
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.parser import parse

_HERE = Path(__file__).parent
WRONG = sorted(_HERE.glob("wrong/*.ini"))
WRONG_OF_FEATURES = sorted(_HERE.parent.glob("features/*/wrong*.ini"))

_PATH = "/nowhere/rules.ini"
"""Relative paths start at its folder, wherever the tests run."""

_PLUGINS = re.compile(r"(there is no endpoint type .* \(there are ).*\)")
"""What depends on the packages that are installed."""

_LISTENER = "[listen public]\nendpoint = :443\n"
_SAID = re.compile(r"^# (?:error|warning|note): .*\n", re.MULTILINE)
_NEEDS_LISTENER = re.compile(
    r"^(?!.*^\[+listen).*^\[(?:route|backend|txmux)", re.MULTILINE | re.DOTALL
)


def written(case: str) -> str:
    text = _SAID.sub("", case)
    return text + _LISTENER if _NEEDS_LISTENER.match(text) else text


def problems_of(text: str) -> list[Problem]:
    """Return what `txmux check` says of rules, whoever calls it and whatever files there are."""
    try:
        rules = parse(text, _PATH)
    except RulesError as error:
        return [*error.problems]
    of_check = (
        *closed_listeners(rules), *unchecked_backends(rules), *slow_routes(rules), *cut_signatures(rules, installed_matchers()),
    )  # fmt: skip
    return warnings(rules, [*lint(rules), *of_check])


def annotated(case: str) -> str:
    if names_missing(case):
        return case
    text = _SAID.sub("", case)
    said: dict[int, list[str]] = {}
    lines = text.splitlines(keepends=True)
    for problem in problems_of(written(case)):
        if problem.line <= len(lines):
            said.setdefault(problem.line, []).append(_message(problem, lines))
    return "".join(line + "".join(said.get(number, ())) for number, line in enumerate(("", *lines)))


def wrong_rules() -> Iterator[str]:
    for file in (*WRONG, *WRONG_OF_FEATURES):
        yield from map(written, cases_of(file.read_text()))


def _message(problem: Problem, lines: list[str]) -> str:
    """Return the comment for a problem, with section and key where these are not those of its line."""
    section = key = ""
    for line in lines[: problem.line]:
        if line.startswith("["):
            section, key = " ".join(line.strip("[]\n").split()), ""
        elif line[:1] not in {" ", "#", ";", "\n"}:
            key = re.split("[=:]", line)[0].strip()
    subject = str(problem).removesuffix(problem.message).partition(f":{problem.line}: ")[2]
    subject = subject.removeprefix("warning: ").removeprefix("note: ")
    subject = subject.removeprefix(f"[{section}] {key}: " if key else f"[{section}]: ")
    message = problem.message.replace(f"{_PATH}:", "rules.ini:")
    message = _PLUGINS.sub(r"\1…)", message)
    return f"# {problem.severity}: {subject}{message}\n"

"""Files that Twisted's endpoint strings name, as in ``ssl:443:privateKey=key.pem``: without them nothing starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.endpoints import short_form
from txmux.rules.reading.endpointstrings import CLIENT, SERVER, split_arguments
from txmux.rules.reading.files import check_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txmux.rules.model import Section
    from txmux.rules.problems import Problem

_FORMS = {
    "endpoint": SERVER,
    "server": CLIENT,
    "backend": CLIENT,
    "default": CLIENT,
    "silent": CLIENT,
    "fallback": CLIENT,
}
"""The keys that take endpoint strings."""

_FILES = ("privateKey", "certKey", "extraCertChain", "dhParameters", "certificate")


def missing_files(sections: Iterable[Section]) -> Iterator[Problem]:
    """Find files that are not there; relative paths start at the current folder, as Twisted has it."""
    for section in sections:
        for key in _FORMS:
            for number, item in enumerate(section.items(key)):
                for message in _complaints(key, item.text.split()[0]):
                    yield section.problem(message, key, number)


def _complaints(key: str, text: str) -> Iterator[str]:
    kind = text.partition(":")[0].lower()
    if kind not in {"ssl", "tls"} or short_form(text) is not None:
        return
    try:
        given = _FORMS[key][kind].check(split_arguments(text))
    except InvalidValueError:
        return  # that is told already
    if (key, kind) == ("endpoint", "ssl"):
        given.setdefault("privateKey", "server.pem")  # what Twisted takes then
    for name in _FILES:
        if given.get(name):
            try:
                check_file(Path(given[name]))
            except InvalidValueError as error:
                yield f"{name}: {error}"

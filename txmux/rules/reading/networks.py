"""Networks in a file of their own, one per line: ``from = @blocklist.txt``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from txmux.rules.model import NetworkSet, Varying
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading.values import network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from txmux.rules.model import IPNetwork
    from txmux.rules.reading.files import FileReader

_COMMENT = re.compile("[#;]")
_MOST_PROBLEMS = 5
_LONGEST_SHOWN = 60


class NetworkLists:
    """Reads files of networks, each only once.

    Args:
        files: Gives what is in them; other people's lists may have any bytes in their comments.
        problems: Where what is wrong in them is added; of each file only the first few.
    """

    def __init__(self, files: FileReader, problems: list[Problem]) -> None:
        self._files = files
        self._known: dict[Path, NetworkSet] = {}
        self._named: dict[str, NetworkSet] = {}
        self._problems = problems

    def __call__(self, path: Path) -> NetworkSet:
        """Return the networks of a file, as a set of what varies: other ones may be in it later.

        Raises:
            InvalidValueError: It cannot be read.
        """
        try:
            text, real = self._files.text(path), path.resolve()
            if real not in self._known:
                self._known[real] = NetworkSet(self._networks(text, path))
        except (OSError, ValueError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or "it is not a path of a file"
            raise InvalidValueError(
                f"cannot read '{path}': {why}; a relative path starts at the folder of the file that names it"
            ) from None
        # By its name as it is written: where a link leads may change.
        name = str(path.absolute())
        if name not in self._named:
            self._named[name] = NetworkSet([Varying("file", name, self._known[real])])
        return self._named[name]

    def _networks(self, text: str, path: Path) -> Iterator[IPNetwork]:
        wrong: list[int] = []
        for number, found in read_lines(text):
            if not isinstance(found, str):
                yield found
                continue
            wrong.append(number)
            if len(wrong) <= _MOST_PROBLEMS:
                self._problems.append(Problem(str(path), number, "", "", found))
        if len(wrong) > _MOST_PROBLEMS:
            message = f"is not a network either; there are {len(wrong)} such lines in this file"
            first_hidden = wrong[_MOST_PROBLEMS]
            self._problems.append(Problem(str(path), first_hidden, "", "", message))


def read_lines(text: str) -> Iterator[tuple[int, IPNetwork | str]]:
    """Read the networks of a file.

    Args:
        text: What is in it.

    Yields:
        The number of a line, counted from 1, with its network, or with what is wrong with it.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        item = _COMMENT.split(line, maxsplit=1)[0].strip()
        if not item:
            continue
        try:
            yield number, network(item)
        except InvalidValueError as error:
            yield number, _told(item, error)


def _told(item: str, error: InvalidValueError) -> str:
    if len(item) > _LONGEST_SHOWN:
        return "is not a network; write one a line, such as 10.0.0.0/8, and nothing else"
    if len(item.replace(",", " ").split()) > 1:
        return f"{item!r} is not a network; write one a line, and what else it is to say after '#'"
    return str(error)

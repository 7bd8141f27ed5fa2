"""Networks in files, which are read once."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from txmux.rules.model import DynamicNetworks, IPNetwork, NetworkSet
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading.files import FileReader
from txmux.rules.reading.values import network

_COMMENT = re.compile("[#;]")
_MOST_PROBLEMS = 5
_LONGEST_SHOWN = 60


class NetworkLists:
    """Reads files of networks, each only once; of each, only the first few problems are added to the others.

    What was read `before` is taken over, unless the text has changed, or other contents have come in its place since.
    """

    def __init__(
        self, files: FileReader, problems: list[Problem], before: "NetworkLists | None"
    ) -> None:
        self._files = files
        self._before = before
        self._texts: dict[Path, str] = {}
        self._known: dict[Path, NetworkSet] = {}
        self._named: dict[str, NetworkSet] = {}
        self._problems = problems
        self._wrong: dict[Path, list[Problem]] = {}
        self._reported: set[Path] = set()

    def __call__(self, path: Path, most: int, *, is_of_unit: bool = False) -> NetworkSet:
        """Return the networks of a file, which has `most` bytes, as a set that varies, since the file may change.

        What is wrong in one that a unit names is an error of that unit, which stays alone with it.
        """
        try:
            text, real = self._files.text(path, most), Path(os.path.realpath(path))
            if real not in self._known:
                before, self._texts[real] = self._before, text
                if before is not None and before._texts.get(real) == text:
                    self._known[real] = before._known[real]
                else:
                    self._known[real] = NetworkSet(self._networks(text, path, real))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not a path of a file"
            message = f"cannot read '{path}': {why}; a relative path starts at the folder of the file that names it"
            raise InvalidValueError(message) from None
        if (wrong := self._wrong.get(real)) and is_of_unit:
            raise InvalidValueError(f"{path}:{wrong[0].line}: {wrong[0].message}")
        if wrong and real not in self._reported:
            self._reported.add(real)
            self._problems += wrong
        # By its name as it is written: the target of a link may change.
        name = str(path.absolute())
        if name not in self._named:
            known = self._known[real]
            same = None if self._before is None else self._before._named.get(name)
            if same is None or same.dynamic[0].contents is not known:
                same = NetworkSet([DynamicNetworks("file", name, known)])
            self._named[name] = same
        return self._named[name]

    @property
    def are_as_read(self) -> bool:
        """Whether no other contents have come in the place of what was read."""
        known = [*map(id, self._known.values())]
        return all(id(one.dynamic[0].contents) in known for one in self._named.values())

    def forget_before(self) -> None:
        self._before = None

    def _networks(self, text: str, path: Path, real: Path) -> Iterator[IPNetwork]:
        wrong: list[tuple[int, str]] = []
        for number, found in read_lines(text):
            if isinstance(found, str):
                wrong.append((number, found))
            else:
                yield found
        if len(wrong) > _MOST_PROBLEMS:
            message = f"is not a network either; there are {len(wrong)} such lines in this file"
            wrong[_MOST_PROBLEMS:] = [(wrong[_MOST_PROBLEMS][0], message)]
        self._wrong[real] = [Problem(str(path), number, "", "", why) for number, why in wrong]


def read_lines(text: str) -> Iterator[tuple[int, IPNetwork | str]]:
    """Yield the number of each line of a file, from 1, with its network or its error."""
    for number, line in enumerate(text.split("\n"), start=1):
        item = _COMMENT.split(line, maxsplit=1)[0].strip()
        if not item:
            continue
        try:
            yield number, network(item)
        except InvalidValueError as error:
            yield number, _line_message(item, error)


def _line_message(item: str, error: InvalidValueError) -> str:
    if len(item) > _LONGEST_SHOWN:
        return "is not a network; write one a line, such as 10.0.0.0/8, and nothing else"
    if len(item.replace(",", " ").split()) > 1:
        return f"{item!r} is not a network; write one a line, and what else it is to say after '#'"
    return str(error)

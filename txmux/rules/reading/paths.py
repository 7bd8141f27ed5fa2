"""The values of a rules file that name other files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from txmux.rules.problems import InvalidValueError, with_advice
from txmux.rules.reading.files import check_file
from txmux.rules.reading.networklists import NetworkLists
from txmux.rules.reading.values import file_path, network

if TYPE_CHECKING:
    from txmux.rules.model import IPNetwork, NetworkSet
    from txmux.rules.problems import Problem
    from txmux.rules.reading.files import FileReader

__all__ = ["Paths"]

_NO_PATHS = frozenset(
    {"none", "on", "off", "no", "yes", "stdout", "stderr", "syslog", "true", "false"}
)


_FILE = re.compile(r"\.[a-z]+$")


class Paths:
    """Reads such values.

    Args:
        main: The main file.
        reader: Reads the files that values name.
        on_disk: Whether files have to be there that only the service needs.

    Attributes:
        folder: That of the file which is being read.
    """

    def __init__(self, main: str, reader: FileReader, *, on_disk: bool) -> None:
        self._home = Path(main).parent
        self._on_disk = on_disk
        self._lists = NetworkLists(reader)
        self.folder = self._home

    @property
    def problems(self) -> list[Problem]:
        """What is wrong in the files of networks."""
        return self._lists.problems

    def access_log(self, text: str) -> Path | Literal["-"] | None:
        """Read where the access log goes; ``None`` is nowhere."""
        if text == "-":
            return "-"
        if text != "off" and text.casefold() in _NO_PATHS:
            raise InvalidValueError(
                f"{text!r} is no path; write 'off' for no log, '-' for the service's own log, "
                f"or './{text}' for a file of that name"
            )
        return None if text == "off" else self._home / file_path(text)

    def pem(self, text: str) -> Path:
        """Read the path of a file of certificates or keys; a relative one starts at the folder of the main file."""
        path = self._home / file_path(text)
        if self._on_disk:
            check_file(path)
        return path

    def networks(self, text: str) -> IPNetwork | NetworkSet:
        """Read a network, or ``@FILE``; a relative path starts at the folder of the file that names it."""
        if not text.startswith("@"):
            try:
                return network(text)
            except InvalidValueError as error:
                hint = f"if it is a file of networks, write '@{text}'" if _FILE.search(text) else ""
                raise InvalidValueError(with_advice(str(error), hint)) from None
        name = text[1:].strip()
        if not name:
            raise InvalidValueError("'@' names no file; write for example '@blocklist.txt'")
        return self._lists(self.folder / name)

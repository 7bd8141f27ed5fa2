"""What the values of a rules file may refer to: other files, other sections and matchers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from txmux.rules.model import Backend, NetworkSet, Refusal
from txmux.rules.problems import InvalidValueError, did_you_mean, joined, with_advice
from txmux.rules.reading import endpoints
from txmux.rules.reading.files import check_file
from txmux.rules.reading.key import Kind
from txmux.rules.reading.networks import NetworkLists
from txmux.rules.reading.values import NAME, file_path, network, split_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from txmux.interfaces import IProtocolMatcher
    from txmux.rules.model import IPNetwork, Outcome, Section
    from txmux.rules.problems import Problem
    from txmux.rules.reading.files import FileReader

REFUSALS = {refusal.value: refusal for refusal in Refusal}
"""Outcomes that are no backends, by their words."""

_FILE = re.compile(r"\.[a-z]+$")


class Reading:
    """Reads values that mean something only together with the rest of the rules.

    Args:
        files: Reads the files that values name.
        backend: Gives the backend of a section, if there is one of this name.
        on_disk: Whether files have to be there that only the service needs.

    Attributes:
        home: The folder of the main file.
        folder: That of the file which is being read.
        problems: All that is wrong so far.
        sections: By kind and name; several of one name are an error already.
        resolvers: The name servers of backends that say nothing of theirs.
    """

    def __init__(
        self,
        files: FileReader,
        matchers: Mapping[str, IProtocolMatcher],
        backend: Callable[[str], Backend | None],
        *,
        on_disk: bool,
    ) -> None:
        self.files = files
        self.matchers = matchers
        self.home = self.folder = files.folder
        self.problems: list[Problem] = []
        self.sections: dict[str, dict[str, list[Section]]] = {}
        self.resolvers: tuple[tuple[str, int], ...] = ()
        self._backend = backend
        self._on_disk = on_disk
        self._lists = NetworkLists(files, self.problems)

    def pem(self, text: str) -> Path:
        """Read the path of a file of certificates or keys; a relative one starts at the folder of the main file."""
        path = self.home / file_path(text)
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

    def outcome(self, text: str) -> Outcome:
        """Read where a client is led."""
        if text in REFUSALS:
            return REFUSALS[text]
        backend = self._backend(text)
        if backend is not None:
            return backend
        if NAME.fullmatch(text) and not text.replace(".", "").isdigit():
            hint = did_you_mean(text, (*self.sections["backend"], *REFUSALS))
            advice = f"write the name of a backend, HOST:PORT, unix:/path, {joined(list(REFUSALS))}"
            raise InvalidValueError(with_advice(f"there is no [backend {text}]{hint}", advice))
        server = endpoints.server(text)
        if len(split_words(text)) > 1:
            raise InvalidValueError(
                f"{text!r}: options of a server need a [backend]; write one with this server, and its name here"
            )
        return Backend(text, (server,), resolvers=self.resolvers)


def _together(networks: Iterable[IPNetwork | NetworkSet]) -> NetworkSet:
    found = tuple(networks)
    # A file that several keys name is kept once.
    if len(found) == 1 and isinstance(found[0], NetworkSet):
        return found[0]
    return NetworkSet(found)


NETWORKS = Kind(Reading.networks, "list of networks", "list", _together, in_context=True)
OUTCOME = Kind(Reading.outcome, "[outcome](#outcomes)", in_context=True)
RESOLVERS = Kind(
    endpoints.name_server,
    "list of `ADDRESS` or `ADDRESS:PORT`",
    "list",
    lambda places: tuple(dict.fromkeys(places)),
)
PEM = Kind(Reading.pem, "path", in_context=True)
PEMS = Kind(Reading.pem, "list of paths", "list", in_context=True)

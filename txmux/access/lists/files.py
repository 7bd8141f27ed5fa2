"""Files that are read again when they have changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs
from twisted.logger import Logger

from txmux.access.lists.packing import pack
from txmux.errors import MuxError
from txmux.files import read_list, state_at
from txmux.net.turns import Turns
from txmux.rules.model import NetworkSet
from txmux.rules.reading.files import text_of
from txmux.rules.reading.networks import read_lines

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from txmux.access.lists.packing import Packed
    from txmux.files import FileState
    from txmux.rules.model import IPNetwork

__all__ = ["NetworksFile", "Watched"]

_UNSURE = 2_000_000_000
"""Nanoseconds in which a file may change twice and still look the same."""


class Watched:
    """A file that others write.

    Args:
        path: May be a link, which may lead elsewhere later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: FileState | None = None

    def read(self) -> bytes | None:
        """Read it, if it may have changed since it was read.

        Raises:
            OSError: It cannot be read, by the helper neither.
        """
        # If it cannot be read now, it is read when it is back, even if it is the same then.
        known, self._state = self._state, None
        state, _ = state_at(self.path)
        if state == known:
            self._state = known
            return None
        data = read_list(self.path)
        *_, written_at = state
        self._state = state if time.time_ns() - written_at > _UNSURE else None
        return data


class BadFileError(MuxError):
    """There is something else than networks in it."""


@attrs.define
class NetworksFile:
    """A file of networks: ``@FILE``.

    Attributes:
        path: Its path.
        text: What is in the networks that hold.
        problem: Why these are not what is in the file; nothing if they are.
    """

    path: Path
    text: str | None
    _watched: Watched = attrs.field(init=False)
    problem: str = attrs.field(default="", init=False)

    _log = Logger()

    @_watched.default
    def _watch(self) -> Watched:
        return Watched(self.path)

    async def look(self) -> Packed | None:
        """Return what is in it, if that is something else now. A file that cannot be read, or is wrong, changes nothing and is told of once."""
        try:
            data = self._watched.read()
            if data is None:
                return None
            text = text_of(data)
            if text == self.text:
                self._is_right()
                return None
            networks = await Turns().run(_networks(text))
        except OSError as error:
            self._is_wrong(f"cannot read '{self.path}': {error.strerror}")
            return None
        except BadFileError as error:
            self._is_wrong(f"{self.path}:{error}")
            return None
        self.text = text
        self._is_right()
        self._log.info("{path}: networks now: {count}", path=str(self.path), count=len(networks))
        return pack(networks)

    def _is_wrong(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            told = "{problem}; its networks are as before, correct it"
            self._log.error(told, problem=problem)

    def _is_right(self) -> None:
        self.problem = ""


def _networks(text: str) -> Generator[None, None, NetworkSet]:
    """Read networks step by step."""
    found: list[IPNetwork] = []
    for count, (number, read) in enumerate(read_lines(text)):
        if isinstance(read, str):
            raise BadFileError(f"{number}: {read}")
        found.append(read)
        if not count % 100:
            yield
    return NetworkSet(found)

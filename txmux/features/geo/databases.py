"""Where addresses are: the country and the autonomous system, from files in MaxMind's format.

Source: MaxMind DB File Format Specification 2.0, as the package maxminddb reads it.
"""

import io
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from txmux.access.network_sources import WatchedFile
from txmux.errors import MuxError, how_to_install
from txmux.features.geo import DATABASES, GeoRegion
from txmux.files import LARGEST, read_bytes
from txmux.net.turns import look_in_thread
from txmux.rules.model import DynamicNetworks, Settings
from txmux.rules.problems import RulesError
from txmux.transport import IPAddress

Found = frozenset[tuple[str, str | int]]

_MOST_CACHED = 10_000
_TRIED = (*(f"{first}.0.0.1" for first in range(0, 256, 4)), *(f"2{x:x}00::1" for x in range(16)))
"""Addresses in all parts of a database. One in which they cannot be looked up is not used."""


class GeoDatabaseError(MuxError):
    """A database cannot be read."""


class GeoDatabase:
    """Looks addresses up. Results are cached for a while, since a look-up reads a tree bit by bit.

    Attributes:
        trouble: Why a file is not in use, or is damaged; empty if all are right.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._paths: Sequence[Path] = ()
        self._readers: list[Any] = []
        self._found: dict[IPAddress, Found] = {}
        self.trouble = ""

    def prepare(self, settings: Settings, *, may_lack: bool) -> None:
        """Use the files that the settings name; see `read`."""
        try:
            self.read(settings.more.get(DATABASES, ()), may_lack=may_lack)
        except GeoDatabaseError as problem:
            raise RulesError([settings.section.problem(str(problem), DATABASES)]) from None

    def serve(self, networks: DynamicNetworks) -> None:
        if isinstance(networks.contents, GeoRegion):
            networks.contents.find = self.find

    def read(self, paths: Sequence[Path], *, may_lack: bool = False) -> None:
        """Use these files; raises `GeoDatabaseError` if one cannot be read, and then keeps the previous ones.

        With `may_lack`, uses those that can be read.
        """
        if paths != self._paths:
            readers, trouble = [], ""
            for path in paths:
                try:
                    readers.append(_reader(path))
                except GeoDatabaseError as problem:
                    if not may_lack:
                        raise
                    trouble = f"{DATABASES}: {problem}; its addresses are in no country or system"
                    self._log.error("{trouble}", trouble=trouble)
            self._readers, self.trouble = readers, trouble
            self._paths = paths
            self._found.clear()

    async def read_again(self) -> None:
        """Read the same files again, in a thread; if one of them is bad, nothing changes."""
        paths = self._paths
        try:
            readers = await look_in_thread(lambda: [_reader(path) for path in paths])
        except (GeoDatabaseError, OSError) as problem:
            self._log.error("{problem}; keeping its previous contents", problem=problem)
            return
        if paths is self._paths:
            self._readers, self.trouble = readers, ""
            self._found.clear()

    def find(self, address: IPAddress) -> Found:
        facts = self._found.get(address)
        if facts is None:
            if len(self._found) >= _MOST_CACHED:
                self._found.clear()
            facts = self._found[address] = frozenset(
                fact
                for reader in self._readers
                for fact in _facts_of(self._record(reader, address))
            )
        return facts

    def _record(self, reader: Any, address: IPAddress) -> Any:
        try:
            return _look_up(reader, address)
        except Exception as problem:  # noqa: BLE001 - what is raised depends on what is damaged
            if not self.trouble:
                self.trouble = f"{DATABASES}: one is damaged, so some addresses are in no country or system: {problem!r}; get it again"
                self._log.error("{trouble}", trouble=self.trouble)
            return None


def _look_up(reader: Any, address: IPAddress) -> Any:
    is_missing = address.version == 6 and reader.metadata().ip_version == 4
    return None if is_missing else reader.get(address)


def _facts_of(record: Any) -> list[tuple[str, str | int]]:
    facts: list[tuple[str, str | int]] = []
    for key, name in (("country", "iso_code"), ("continent", "code")):
        with suppress(KeyError, TypeError):
            facts.append((key, str(record[key][name]).upper()))
    with suppress(KeyError, TypeError, ValueError):
        facts.append(("as", int(record["autonomous_system_number"])))
    return facts


def _reader(path: Path) -> Any:
    try:
        return read_geo_database(path, read_bytes(path, LARGEST))
    except OSError as error:
        raise GeoDatabaseError(f"cannot read '{path}': {error.strerror}") from None


def read_geo_database(path: Path, data: bytes) -> Any:
    """Return a reader of a database with this content, or raise `GeoDatabaseError`; the path is for messages."""
    try:
        import maxminddb  # noqa: PLC0415 - optional: `txmux[geo]`
    except ImportError:
        message = f"geo: and as: networks need the package maxminddb; run: {how_to_install('geo')}"
        raise GeoDatabaseError(message) from None
    try:
        # Read as a whole: a mapped file that is truncated would end the process.
        reader = maxminddb.open_database(io.BytesIO(data), maxminddb.MODE_FD)
        for address in _TRIED:
            _look_up(reader, ip_address(address))
    except Exception:  # noqa: BLE001 - what is raised depends on what is damaged
        message = f"'{path}' is not a database in MaxMind's format; write the path of a file ending in .mmdb"
        raise GeoDatabaseError(message) from None
    return reader


class WatchedDatabase:
    """A database that others write anew, which each process reads for itself."""

    def __init__(self, path: Path) -> None:
        self._watched = WatchedFile(path, LARGEST)
        self._is_known = False
        self.trouble = ""

    async def fetch_changes(self) -> Any:
        try:
            content = await self._watched.read_in_thread(self._read)
        except OSError as error:  # it is being exchanged, or it is missed when it is read
            self.trouble = f"cannot read it: {error.strerror}"
            return None
        except GeoDatabaseError as error:
            self.trouble = str(error)
            return None
        if content is None:
            return None
        self.trouble = ""
        was_known, self._is_known = self._is_known, True
        return content if was_known else None

    def _read(self) -> int | None:
        """Return what differs with the content of a database that is right; ``None`` if it has not changed."""
        data = self._watched.read()
        if data is None:
            return None
        read_geo_database(self._watched.path, data)
        return hash(data)

"""Databases that others write anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from txmux.access.lists.updates import WatchedFile
from txmux.features.geo.databases import GeoDatabaseError, read_geo_database
from txmux.files import LARGEST


class Database:
    """A database, which each process reads for itself."""

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

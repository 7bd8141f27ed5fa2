"""Whether the installed code is still that of this process."""

import os
import re
from contextlib import suppress
from pathlib import Path

from txmux.version import __version__

_PACKAGE = Path(__file__).parent


class InstalledCode:
    """The modules of a package, as they were when this was made."""

    def __init__(self, package: Path = _PACKAGE) -> None:
        self._package = package
        self._digest = self._look()

    def change(self) -> str:
        """Return a sentence if it has changed; otherwise an empty string.

        Nothing else should be imported then: it may not fit, or may be incomplete.
        """
        if self._look() == self._digest:
            return ""
        found = None
        with suppress(OSError, UnicodeDecodeError):  # it is being replaced
            found = re.search('__version__ = "(.+)"', (self._package / "version.py").read_text())
        if found is None or found[1] == __version__:
            return "the installed code has changed since the service started"
        return f"txmux {found[1]} is installed, this service runs {__version__}"

    def _look(self) -> int:
        modules: set[tuple[str, int, int]] = set()
        for folder, _, files in os.walk(self._package):
            for name in files:
                if name.endswith(".py"):
                    path, size, changed = os.path.join(folder, name), 0, 0  # noqa: PTH118 - there are hundreds
                    with suppress(OSError):  # as above
                        status = os.stat(path)  # noqa: PTH116 - as above
                        size, changed = status.st_size, status.st_mtime_ns
                    modules.add((path, size, changed))
        return hash(frozenset(modules))

"""The bind lines of an ``haproxy.cfg``, as far as tests depend on them, and the files that tests name."""

from __future__ import annotations

import errno
from pathlib import PurePath
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pathlib import Path

    from txmux.convert.writer import Origin

_LARGEST = 1 << 20


@attrs.frozen
class Secured:
    """TLS that ends at a ``bind``.

    Attributes:
        alpn: The protocols that are spoken, the preferred first.
        client_ca: The file of the authorities of clients; empty if they need no certificate.
    """

    certificates: tuple[str, ...]
    alpn: tuple[str, ...] = ()
    client_ca: str = ""
    minimum: str = ""


@attrs.define(eq=False)
class SideFiles:
    """Files beside a configuration.

    Attributes:
        read: The lines that were read, and are not reported yet.
        pending: What is to be reported about the test that was read last.
        notes: What is reported in the end, with the lines.
    """

    folder: Path
    read: list[str] = attrs.field(factory=list)
    pending: list[str] = attrs.field(factory=list)
    notes: list[tuple[Origin, str]] = attrs.field(factory=list)

    def report_at(self, line: int) -> None:
        self.notes += [(line, message) for message in self.pending]
        self.pending.clear()

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file without blank lines and comments."""
        if "\0" in name:
            raise FileNotFoundError(errno.ENOENT, "no file has such a name")
        with (self.folder / name).open("rb") as file:
            text = file.read(_LARGEST).decode("latin-1")
        self.read.append(name)
        lines = (line.strip() for line in text.split("\n"))
        return [line for line in lines if line and not line.startswith("#")]

    def certificates(self, name: str) -> list[str]:
        """Return the PEM files of a path: those of a folder, or the file with one for its key, if there is one."""
        path = self.folder / name
        try:
            if path.is_dir():
                files = sorted(file.name for file in path.iterdir() if file.suffix not in _OTHERS)
                return [str(PurePath(name) / file) for file in files if not file.startswith(".")]
            if path.is_file() and b"PRIVATE KEY" not in path.read_bytes():
                keys = (f"{name}.key", str(PurePath(name).with_suffix(".key")))
                return [name, *[key for key in keys if (self.folder / key).is_file()][:1]]
        except OSError:
            pass  # reported when the rules are read
        return [name]


_OTHERS = frozenset({".issuer", ".key", ".ocsp", ".sctl"})
"""Beside certificates."""


@attrs.frozen
class BindContext:
    """The bind line of a client.

    Attributes:
        host: Its address; empty for every one.
        port: Its port; empty if there are several.
    """

    files: SideFiles
    secured: Secured | None = None
    host: str = ""
    port: str = ""

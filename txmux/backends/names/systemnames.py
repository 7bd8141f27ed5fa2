"""What the system says of names: ``/etc/hosts``, and in ``/etc/resolv.conf`` whom to ask."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
from twisted.names import dns, hosts
from twisted.python.filepath import FilePath

from txmux.rules.model.networks import is_address

if TYPE_CHECKING:
    from pathlib import Path

_LOOPBACK = frozenset({"127.0.0.1", "::1"})

_MOST_DOTS = 15
"""As much as ``ndots`` may be."""


@attrs.frozen
class ResolvConf:
    """What ``resolv.conf(5)`` says. What is not here, such as ``rotate`` and ``timeout``, is not heeded.

    Attributes:
        servers: IP addresses of name servers.
        search: Domains that short names are looked for in.
        ndots: A name with at least this many dots is first taken as it is.
    """

    servers: tuple[str, ...] = ("127.0.0.1",)
    search: tuple[str, ...] = ()
    ndots: int = 1

    @classmethod
    def read(cls, path: Path) -> ResolvConf:
        """Read the file; one that cannot be read is as an empty one."""
        try:
            return cls.parse(path.read_bytes().decode(errors="replace"))
        except OSError:
            return cls()

    @classmethod
    def parse(cls, text: str) -> ResolvConf:
        """Read the text of a file, and pass over what cannot be understood."""
        servers: list[str] = []
        found = cls()
        for line in text.splitlines():
            key, *values = line.partition("#")[0].partition(";")[0].split() or [""]
            if key == "nameserver" and values and is_address(values[0]):
                servers.append(values[0])
            elif key in {"search", "domain"}:
                # The last of these lines holds.
                found = attrs.evolve(found, search=tuple(value.strip(".") for value in values))
            elif key == "options":
                for value in values:
                    name, _, number = value.partition(":")
                    if name == "ndots" and number.isdecimal():
                        found = attrs.evolve(found, ndots=min(int(number), _MOST_DOTS))
        return attrs.evolve(found, servers=tuple(servers)) if servers else found

    def candidates(self, name: str) -> list[str]:
        """Return the full names that may be meant by a name, in the order in which they are tried."""
        if name.endswith("."):
            return [name.rstrip(".")]
        inside = [f"{name}.{domain}" for domain in self.search if domain]
        return [name, *inside] if name.count(".") >= self.ndots else [*inside, name]


def listed_addresses(name: str, path: Path) -> frozenset[str]:
    """Look a name up in ``/etc/hosts``.

    Args:
        name: A host name.
        path: The file. One that cannot be read is as an empty one.

    Returns:
        Its IP addresses; empty if it is not there. ``localhost`` always has some (RFC 6761, section 6.3).
    """
    plain = name.rstrip(".").lower()
    found: list[str] = []
    with suppress(UnicodeError):  # no name that a file or a server could have
        found = hosts.searchFileForAll(FilePath(str(path)), dns.domainString(plain))
    if not found and (plain == "localhost" or plain.endswith(".localhost")):
        return _LOOPBACK
    return frozenset(str(ipaddress.ip_address(text)) for text in found if is_address(text))


def has_route(host: str) -> bool:
    """Return whether this machine knows a way to an IP address. Nothing is sent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
    except OSError:
        return False
    return True

"""The TCP ports of this machine on which a program listens, from proc(5)."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import attrs

from txmux.transport import unmapped

_LISTEN = "0A"  # TCP_LISTEN in linux/include/net/tcp_states.h


@attrs.frozen
class Listening:
    """A port that is listened at; the program is empty where this user may not know it."""

    address: IPv4Address | IPv6Address
    port: int
    program: str = ""

    @property
    def is_local(self) -> bool:
        return self.address.is_loopback

    @property
    def reached_at(self) -> tuple[str, int]:
        if self.address.is_unspecified:
            return ("127.0.0.1" if self.address.version == 4 else "::1"), self.port
        return str(self.address), self.port


def listening(proc: Path) -> list[Listening]:
    """Read the list of sockets, without connecting to any.

    Returns:
        One for each port, by port and address; where several sockets have a port, the one that most clients reach, IPv4 before IPv6.
    """
    sockets = {}
    for name, kind in (("tcp", IPv4Address), ("tcp6", IPv6Address)):
        path = proc / "net" / name
        if name == "tcp6" and not path.exists():
            continue  # the system was built without IPv6
        for packed, number, inode in _sockets(path.read_text()):
            address = unmapped(kind(packed))
            # Without the interface of such an address, which /proc does not show, it cannot be connected to.
            if not (address.version == 6 and address.is_link_local):
                sockets[address, number] = inode
    owners = _owners(proc, set(sockets.values()))
    by_port: dict[int, Listening] = {}
    for (address, port), inode in sorted(sockets.items(), key=_rank):
        by_port.setdefault(port, Listening(address, port, owners.get(inode, "")))
    return [by_port[port] for port in sorted(by_port)]


def _rank(item: tuple[tuple[IPv4Address | IPv6Address, int], str]) -> tuple[int, bool, int, bytes]:
    (address, port), _ = item
    return port, not address.is_unspecified, address.version, address.packed


def _sockets(text: str) -> Iterator[tuple[bytes, int, str]]:
    """Yield address, port and inode of each socket that listens."""
    for line in text.splitlines()[1:]:
        words = line.split()
        address, _, port = words[1].partition(":")
        if words[3] == _LISTEN:
            # Words of four bytes, each as a number of this machine.
            parts = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
            yield struct.pack(f"={len(parts)}I", *parts), int(port, 16), words[9]


def _owners(proc: Path, inodes: set[str]) -> dict[str, str]:
    """Return the names of programs by the inodes of their sockets; those of other users cannot be seen by all."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    programs: dict[str, str] = {}
    for folder in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):  # it has ended, or is another user's
            for link in (folder / "fd").iterdir():
                with suppress(OSError):
                    inode = links.get(str(link.readlink()), "")
                    if inode:
                        programs.setdefault(inode, _name(folder))
    return programs


def _name(folder: Path) -> str:
    """Return a program's name, which it may set to any text, as one plain word."""
    name = (folder / "comm").read_text(errors="replace").strip()
    return "".join(c if c.isascii() and (c.isalnum() or c in "+-._") else "_" for c in name)


def address_text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

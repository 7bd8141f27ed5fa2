"""The TCP ports of this machine on which a program listens, from proc(5), and which protocol it speaks, by its program, its greeting, or its port."""

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from txmux.classes import frozen
from txmux.transport import unmapped

_LISTEN = "0A"  # TCP_LISTEN in linux/include/net/tcp_states.h


@frozen
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


@frozen
class ServiceKind:
    """A protocol.

    Without a matcher its clients wait for the server to speak; a public one is meant for all clients, as the web and SSH are.
    """

    name: str
    matcher: str = ""
    is_public: bool = False


@frozen
class Probed:
    """What a server has sent: by itself, or else in answer to a hello or a request, and whether only behind a PROXY header.

    Attributes:
        is_usual: Whether it speaks what is usual for its port, since it has answered to that.
    """

    greeting: bytes = b""
    answer: bytes = b""
    has_header: bool = False
    is_usual: bool = False


@frozen
class FoundService:
    """A server and its protocol, if that is known, and how: by ``program``, ``greeting``, ``answer`` or ``port``.

    Attributes:
        is_guess: Whether its protocol is only a usual one.
        has_header: Whether it expects a PROXY header.
    """

    listening: Listening
    kind: ServiceKind | None = None
    by: str = ""
    is_guess: bool = False
    has_header: bool = False


SSH, TLS, HTTP = (
    ServiceKind("SSH", "ssh", is_public=True),
    ServiceKind("TLS", "tls", is_public=True),
    ServiceKind("HTTP", "http", is_public=True),
)
_SMTP, _FTP, _IMAP, _POP3, _MYSQL, _VNC = map(
    ServiceKind, ("SMTP", "FTP", "IMAP", "POP3", "MySQL", "VNC")
)
_SPEAKS = ServiceKind("a protocol in which the server speaks first")


def _kind(matcher: str) -> ServiceKind:
    return ServiceKind(matcher, matcher)


WEB = {"apache2", "caddy", "envoy", "haproxy", "httpd", "lighttpd", "nginx", "traefik"}
"""Programs whose ports distinguish two protocols."""

PROGRAMS = {
    **dict.fromkeys(("sshd", "dropbear"), SSH),
    **dict.fromkeys(("mysqld", "mariadbd"), _MYSQL),
    **dict.fromkeys(("Xvnc", "Xtigervnc", "x11vnc", "vino-server"), _VNC),
    **dict.fromkeys(("vsftpd", "proftpd", "pure-ftpd"), _FTP),
    **dict.fromkeys(("redis-server", "valkey-server"), _kind("redis")),
    "postgres": _kind("postgres"),
    "memcached": _kind("memcached"),
    "mongod": _kind("mongodb"),
    "mosquitto": _kind("mqtt"),
    "openvpn": _kind("openvpn"),
    "rsync": _kind("rsync"),
    "slapd": _kind("ldap"),
    "smbd": _kind("smb"),
    "tincd": _kind("tinc"),
    "xrdp": _kind("rdp"),
}

PORTS = {
    **dict.fromkeys((22, 2222), SSH),
    **dict.fromkeys((80, 3000, 8000, 8008, 8080, 8081, 8888), HTTP),
    **dict.fromkeys((443, 465, 636, 853, 990, 993, 995, 4443, 5671, 6443, 8443, 8883, 9443), TLS),
    **dict.fromkeys((25, 587), _SMTP), **dict.fromkeys(range(5900, 5910), _VNC), 21: _FTP,
    110: _POP3, 143: _IMAP, 3306: _MYSQL, 389: _kind("ldap"), 445: _kind("smb"), 554: _kind("rtsp"),
    873: _kind("rsync"), 1080: _kind("socks5"), 1194: _kind("openvpn"), 1433: _kind("tds"),
    1521: _kind("tns"), 1723: _kind("pptp"), 1883: _kind("mqtt"), 1935: _kind("rtmp"),
    2181: _kind("zookeeper"), 3389: _kind("rdp"), 5060: _kind("sip"), 5222: _kind("xmpp"),
    5432: _kind("postgres"), 5555: _kind("adb"), 5672: _kind("amqp"), 6000: _kind("x11"),
    6379: _kind("redis"), 6667: _kind("irc"), 8333: _kind("bitcoin"), 9042: _kind("cassandra"),
    9092: _kind("kafka"), 9300: _kind("elasticsearch"), 9418: _kind("git"), 10051: _kind("zabbix"),
    11211: _kind("memcached"), 25565: _kind("minecraft"), 27017: _kind("mongodb"),
    3260: _kind("iscsi"), 3868: _kind("diameter"), 33060: _kind("mysqlx"), 61613: _kind("stomp"),
}  # fmt: skip

GREETINGS = (
    (re.compile(rb"SSH-\d"), SSH),
    (re.compile(rb"RFB \d{3}\."), _VNC),
    (re.compile(rb"220[ -][^\r\n]*(?i:smtp|mail)"), _SMTP),
    (re.compile(rb"220[ -]"), ServiceKind("FTP or SMTP")),
    (re.compile(rb"\* (?:OK|PREAUTH)"), _IMAP),
    (re.compile(rb"\+OK"), _POP3),
    (re.compile(rb"@RSYNCD: "), _kind("rsync")),
    # MySQL's Protocol::HandshakeV10, or an error in its place: the length, number 0, and the version 10 or 255.
    (re.compile(rb".{3}\0[\x0a\xff]", re.DOTALL), _MYSQL),
    (re.compile(rb"."), _SPEAKS),
)


_ANSWERS = (
    (re.compile(rb"[\x15\x16]\x03"), TLS),
    (re.compile(rb"HTTP/1\."), HTTP),
    (re.compile(rb"ERROR\r\n"), _kind("memcached")),
    *GREETINGS[:-1],
)


def speaks_one_protocol(listening: Listening) -> bool:
    return listening.program in PROGRAMS


def recognise(listening: Listening, probed: Probed = Probed()) -> FoundService:  # noqa: B008 - it is frozen
    for by, data, kinds in (
        ("greeting", probed.greeting, GREETINGS),
        ("answer", probed.answer, _ANSWERS),
    ):
        for pattern, kind in kinds:
            if pattern.match(data):
                return FoundService(listening, kind, by, has_header=probed.has_header)
    if speaks_one_protocol(listening):
        return FoundService(listening, PROGRAMS[listening.program], "program")
    kind_of_port = PORTS.get(listening.port)
    if probed.is_usual:
        return FoundService(listening, kind_of_port, "answer")
    if listening.program in WEB:
        usual = TLS if kind_of_port is TLS else HTTP
        return FoundService(listening, usual, "program", is_guess=True)
    return FoundService(listening, kind_of_port, "port", is_guess=kind_of_port is not None)

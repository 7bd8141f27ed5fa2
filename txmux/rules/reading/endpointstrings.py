"""The form of Twisted's endpoint strings, ``kind:argument:name=value``, and what its own kinds take.

Twisted checks such a string only while it makes the endpoint, which reads certificates and looks for inherited
sockets. Here nothing is opened, so that a rules file can be checked anywhere.
"""

import ipaddress
import pwd
import re
from collections.abc import Callable, Iterable, Mapping

from txmux.classes import frozen
from txmux.errors import listed
from txmux.rules.advice.words import did_you_mean
from txmux.rules.model import LOCAL, NAMES, PORT, Handover, Server
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.values import choice, of_form, socket_path, split_words, whole_number
from txmux.transport import is_address
from txmux.wire.globs import not_of_names

_ARGUMENT = re.compile(
    r"(?P<first>(?:\\.|[^\\:=])*)(?:=(?P<value>(?:\\.|[^\\:])*))?:", flags=re.DOTALL
)
_ESCAPED = re.compile(r"\\(.)", flags=re.DOTALL)
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


@frozen
class Arguments:
    """A Twisted endpoint string, taken apart."""

    kind: str
    positional: tuple[str, ...]
    named: Mapping[str, str]


def split_arguments(text: str) -> Arguments:
    """Split an endpoint string at ``:`` and ``=``; a backslash escapes both, and itself."""
    positional: list[str] = []
    named: dict[str, str] = {}
    whole, start = f"{text}:", 0
    while start < len(whole):
        match = _ARGUMENT.match(whole, start)
        if match is None:
            raise InvalidValueError(f"{text!r} ends in a backslash; write \\\\ for a backslash")
        start = match.end()
        first = _ESCAPED.sub(r"\1", match["first"])
        if match["value"] is None:
            positional.append(first)
        elif first in named:
            raise InvalidValueError(f"{first!r} is given twice in {text!r}; keep one")
        else:
            named[first] = _ESCAPED.sub(r"\1", match["value"])
    return Arguments(positional[0], tuple(positional[1:]), named)


def host_name(text: str) -> str:
    labels = text.removesuffix(".").split(".")
    if ":" in text or labels[-1].isdecimal():
        if not is_address(text):
            host, _, port = text.partition(":")
            is_name = all(map(_LABEL.fullmatch, host.split(".")))
            meant = host if port.isdecimal() and is_name else "one such as 192.0.2.1"
            what = "alone, without a port" if port.isdecimal() else "an IP address"
            raise InvalidValueError(f"{text!r} is not {what}; write {meant}")
    elif len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        meant = "one such as www.example.com, or an IP address"
        is_encoded = text.isascii() or not_of_names(text)
        hint = meant if is_encoded else "an international name in its xn-- form"
        raise InvalidValueError(f"{text!r} is not a host name; write {hint}")
    return text


def server_host(text: str) -> str:
    """Check what `host_name` does, or a text with a placeholder for a client's name or address."""
    placeholders = _PLACEHOLDER.findall(text)
    for one in placeholders:
        if one not in {LOCAL, *NAMES}:
            meant = "; the port goes behind the host" if one == PORT else ""
            raise InvalidValueError(
                f"{one!r} stands for nothing; write {LOCAL} for the address that the client connected to; "
                f"{' or '.join(NAMES)} are the name that it asks for{meant}"
            )
    if len(placeholders) > 1:
        raise InvalidValueError(f"{text!r} has several placeholders; write one")
    if placeholders == [LOCAL] and text != LOCAL:
        raise InvalidValueError(f"{text!r}: an address has nothing beside it; write {LOCAL}")
    if placeholders:
        host_name(text.replace(placeholders[0], "a"))
        return text
    return host_name(text)


_number_of_port = whole_number(1, 65535, "a port")


def server_port(text: str) -> int:
    return 0 if text == PORT else _number_of_port(text)


def link_scope(text: str) -> str:
    """Check that a link-local address names its interface; returns the missing part, or an empty text.

    An IPv6 address of fe80::/10 is one of each link (RFC 4007, section 4), so it takes a zone to listen or connect.
    """
    if "%" in text or ":" not in text or not is_address(text):
        return ""
    return "%eth0" if ipaddress.ip_address(text).is_link_local else ""


def _host(text: str) -> str:
    """Check a host name or an address that can be used by itself."""
    scope = link_scope(host_name(text))
    if scope:
        meant = (text + scope).replace(":", "\\:")
        message = f"{text!r} is an address of one link; write its interface, too: {meant}"
        raise InvalidValueError(message)
    return text


def _version_6(text: str) -> str:
    if text and ":" not in _host(text):
        message = f"{text!r} is not an IPv6 address; write one, or tcp instead of tcp6"
        raise InvalidValueError(message)
    return text


def _octal_mode(text: str) -> str:
    if not re.fullmatch("[0-7]{1,4}", text):
        raise InvalidValueError(f"must be an octal number such as 660, not {text!r}")
    return text


_COLON = "a colon that belongs to an argument is written \\:"
_COUNT = whole_number(0, 1_000_000)
_FLAG = whole_number(0, 1)
_Checks = Mapping[str, Callable[[str], object]]
_LISTEN: _Checks = {"port": whole_number(0, 65535), "address": socket_path}
_CONNECT: _Checks = {"port": whole_number(1, 65535)}
_CHECKS: _Checks = {
    "backlog": _COUNT,
    "bindAddress": _host,
    "domain": choice("INET", "INET6", "UNIX"),
    "host": _host,
    "index": _COUNT,
    "interface": lambda text: text and _host(text),
    "lockfile": _FLAG,
    "mode": _octal_mode,
    "timeout": _COUNT,
}


def _complaints(checks: _Checks, name: str, value: str) -> tuple[str, ...]:
    try:
        checks.get(name, str)(value)
    except InvalidValueError as error:
        return error.messages
    return ()


@frozen
class Form:
    """What one kind of endpoint takes.

    Attributes:
        example: A string of this kind that works.
        names: The arguments that may be given without a name, in their order.
        required: Those it cannot do without; none of them may be empty.
        only_named: The arguments that need their name.
        one_of: Exactly one of these must be there.
        checks: What reads the arguments that only some kinds have, or that differ between them.
        fills_gaps: Whether arguments without a name take the names that are left, as in ``tcp:host=x:80``.
    """

    example: str
    names: tuple[str, ...]
    required: tuple[str, ...] = ()
    only_named: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    checks: _Checks = _LISTEN
    fills_gaps: bool = False

    def check(self, arguments: Arguments) -> dict[str, str]:
        """Check the arguments of an endpoint string, and return all of them by name."""
        given = arguments.named
        names = [n for n in self.names if n not in given] if self.fills_gaps else self.names
        known = (*self.names, *self.only_named)
        kind = arguments.kind
        if len(arguments.positional) > len(names):
            message = f"too many arguments for {kind}; write it as {self.example} ({_COLON})"
            raise InvalidValueError(message)
        messages = [
            f"{kind} takes no {name!r}{did_you_mean(name, known) or listed(known, 'it takes')}"
            for name in given
            if name not in known
        ]
        by_position = dict(zip(names, arguments.positional, strict=False))
        messages += [f"{name!r} is given twice; keep one" for name in by_position if name in given]
        merged = {**by_position, **given}
        messages += [
            f"{kind} needs its {name!r}; write it as {self.example}"
            for name in self.required
            if not merged.get(name)
        ]
        if self.one_of and sum(name in merged for name in self.one_of) != 1:
            messages.append(f"{kind} needs one of {' and '.join(self.one_of)}: {self.example}")
        messages += [
            f"{name}: {complaint}"
            for name, value in merged.items()
            if value or name not in self.required
            for complaint in _complaints({**_CHECKS, **self.checks}, name, value)
        ]
        if messages and "" in arguments.positional[1:]:
            raise InvalidValueError(f"{_COLON}, as in interface=\\:\\:1")
        if messages:
            raise InvalidValueError(*messages)
        return merged


_CHAIN_FILES = ("extraCertChain", "dhParameters")
_OF_SOCKETS = ("timeout", "bindAddress")
_HOST_PORT, _PORT, _PATH = ("host", "port"), ("port",), ("path",)

SERVER: Mapping[str, Form] = {
    "tcp": Form("tcp:443", ("port", "interface", "backlog"), _PORT),
    "tcp6": Form(
        "tcp6:443",
        ("port", "backlog", "interface"),
        _PORT,
        checks={**_LISTEN, "interface": _version_6},
    ),
    "unix": Form("unix:/run/x.sock", ("address", "mode", "backlog", "lockfile"), ("address",)),
    "systemd": Form(
        "systemd:domain=INET:index=0",
        ("domain", "index", "name"),
        ("domain",),
        one_of=("index", "name"),
    ),
    "ssl": Form(
        "ssl:443:privateKey=/etc/key.pem:certKey=/etc/chain.pem",
        ("port", "privateKey", "certKey", "sslmethod", "interface", "backlog", *_CHAIN_FILES),
        _PORT,
    ),
    "tls": Form(
        "tls:/etc/pems:443",
        ("path", "port", "backlog", "interface"),
        ("path",),
        checks={**_LISTEN, "path": of_form(".*[^0-9].*", "is not a folder of PEM files")},
    ),
}
"""The kinds of server endpoint that come with Twisted."""

CLIENT: Mapping[str, Form] = {
    "tcp": Form(
        "tcp:HOST:PORT", _HOST_PORT, _HOST_PORT, _OF_SOCKETS, checks=_CONNECT, fills_gaps=True
    ),
    "ssl": Form(
        "ssl:HOST:PORT:hostname=HOST",
        _HOST_PORT,
        _HOST_PORT,
        (*_OF_SOCKETS, "privateKey", "certKey", "caCertsDir", "hostname"),
        checks=_CONNECT,
        fills_gaps=True,
    ),
    "tls": Form(
        "tls:HOST:PORT",
        (*_HOST_PORT, *_OF_SOCKETS, "certificate", "privateKey", "trustRoots", "endpoint"),
        _HOST_PORT,
        checks=_CONNECT,
    ),
    "unix": Form(
        "unix:/run/x.sock", _PATH, _PATH, ("lockfile", "timeout"), checks={"path": socket_path}
    ),
}
"""The kinds of client endpoint that come with Twisted."""


PREFIX = "udp:"
"""The prefix of endpoints for datagrams."""

_SEVERAL = re.compile(
    r"(?=.*:)((?:(?:udp|tcp6?):)?(?:[0-9.]*:|\[[^\[\]]*\]:)?)([0-9]{1,5})-([0-9]{1,5})"
)
_MOST_LISTED = 20  # ports in a message, or runs of them
_PLACE = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]:|(?P<host>[^:\[\]]*):)?(?P<port>[^:]*)")
_listening_port = whole_number(0, 65535, "a port")


def split_ports(text: str) -> tuple[str, range] | None:
    """Split an endpoint of several ports, as ``:10000-10100``, into what precedes them and the ports; ``None`` if it is none."""
    match = _SEVERAL.fullmatch(text)
    return None if match is None else (match[1], range(int(match[2]), int(match[3]) + 1))


def ports_text(ports: Iterable[int]) -> str:
    """Describe ports for a message: ``port 10003``, or ``ports 10003, 10005-10007``."""
    runs: list[list[int]] = []
    for port in sorted(ports):
        if runs and port == runs[-1][-1] + 1:
            runs[-1][1:] = [port]
        else:
            runs.append([port])
    texts = ["-".join(map(str, run)) for run in runs]
    more = ["…"] if len(texts) > _MOST_LISTED else []
    noun = "port" if texts[0].isdecimal() and len(texts) == 1 else "ports"
    return f"{noun} {', '.join([*texts[:_MOST_LISTED], *more])}"


def is_for_datagrams(text: str) -> bool:
    return text.lower().startswith(PREFIX)


def udp_listen_address(text: str) -> tuple[str, int]:
    """Read ``udp:PORT``, ``udp:ADDRESS:PORT`` or ``udp:[V6]:PORT``; the address is empty for every one."""
    host, port = _split(text, "udp:PORT, udp:ADDRESS:PORT or udp:[V6]:PORT")
    if host.isdecimal():
        raise InvalidValueError(f"{text!r}: write the address first, as udp:127.0.0.1:{host}")
    if host and not is_address(host):
        message = f"{host!r} is not an IP address; write udp:ADDRESS:{port}, or udp:{port} for every address"
        raise InvalidValueError(message)
    return host, _listening_port(port)


def datagram_server(text: str) -> Server:
    """Read ``udp:HOST:PORT``."""
    host, port = _split(text, "udp:HOST:PORT or udp:[V6]:PORT")
    if not host and port and not port.isdecimal() and port != PORT:
        raise InvalidValueError(f"{text!r} has no port; write {text}:PORT")
    if not host:
        raise InvalidValueError(f"{text!r} has no host; write udp:127.0.0.1:{port or 'PORT'}")
    return Server(text, "udp", host=server_host(host), port=server_port(port))


def _split(text: str, forms: str) -> tuple[str, str]:
    if text.startswith(f"{PREFIX}//"):
        message = f"{text!r} is not an address and port; did you mean '{PREFIX}{text[6:]}'?"
        raise InvalidValueError(message)
    place = _PLACE.fullmatch(text[len(PREFIX) :])
    if place is None or not text.startswith(PREFIX):
        raise InvalidValueError(f"{text!r} is not a place for datagrams; write {forms}")
    if place["v6"] is not None:
        if ":" not in place["v6"] or not is_address(place["v6"]):
            raise InvalidValueError(f"{place['v6']!r} is not an IPv6 address; write {forms}")
        scope = link_scope(place["v6"])
        if scope:
            raise InvalidValueError(
                f"{place['v6']!r} is an address of one link; write its interface, too: "
                f"udp:[{place['v6']}{scope}]:{place['port']}"
            )
    return place["v6"] or place["host"] or "", place["port"]


HANDOVER = "handover:"
"""With this begins an outcome that hands over the client's socket."""


def is_handover(text: str) -> bool:
    # With a port behind the word, it is a host of that name.
    return text.startswith(HANDOVER) and not text.removeprefix(HANDOVER).isdecimal()


def handover(text: str) -> Handover:
    """Read ``handover:/PATH user=NAME``."""
    first, *words = split_words(text)
    users = ""
    if words and words[0].startswith("user="):
        users = words.pop(0).removeprefix("user=")
    if words:
        message = f"{' '.join(words)!r} is not expected after the path; only the server's user may follow, as user=NAME, and a path with blanks needs quotes"
        raise InvalidValueError(message)
    path = first.removeprefix(HANDOVER)
    if not path:
        raise InvalidValueError(f"{text!r} names no UNIX socket; write {HANDOVER}/run/x.sock")
    return Handover(
        str(socket_path(path)), frozenset(_user_id(name) for name in users.split(",") if name)
    )


def _user_id(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise InvalidValueError(f"user={name}: there is no such user") from None

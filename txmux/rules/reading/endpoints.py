"""Endpoints of listeners and servers: short forms and Twisted's strings, checked without opening anything."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NoReturn

import attrs
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import getPlugins

from txmux.classes import frozen
from txmux.rules.model import LOCAL, NAMES, PORT, Section, Server, Settings
from txmux.rules.problems import InvalidValueError, Problem, suggestion
from txmux.rules.reading import endpointstrings as strings
from txmux.rules.reading.files import check_file
from txmux.rules.reading.values import file_path, read_options, split_words, whole_number
from txmux.transport import bracketed, is_address

_SHORT = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[^:/]*)")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*")
_ADDRESS_FIRST = re.compile(r"(?![0-9]*:)[^:=\[\]]+:[0-9]+|\[[^\[\]]*\]:[0-9]+")
_HOST_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_NAME_ASKED_FOR = re.compile(r"\$ssl_(?:preread_)?server_name|%\[(?:req[._]ssl_sni|ssl_fc_sni)\b")
_LIKE_SERVICE = re.compile(r"_[A-Za-z0-9-]+")
_BUILT_IN = frozenset({"tcp", "ssl", "unix"})
_NAME_SERVER_PORT = 53
MOST_WEIGHT = 65535  # as in an SRV record

_listening_port = whole_number(0, 65535, "a port")
_server_port = whole_number(1, 65535, "a port")


def listening(text: str, forms: str = "write ADDRESS:PORT, [V6]:PORT, :PORT or tcp:PORT") -> str:
    """Check ``ADDRESS:PORT``, ``[V6]:PORT``, ``:PORT``, a Twisted server endpoint string, or ``udp:`` and a place; `forms` is for messages.

    But for that string, ``FIRST-LAST`` may stand for the port.
    """
    place, _, more = text.partition(" ")
    if more and _SHORT.fullmatch(place):
        advice = "write one endpoint a line, and nothing after it"
        raise InvalidValueError(f"{more!r} is not expected after {place!r}; {advice}")
    several = strings.split_ports(text)
    if several is not None:
        return _several(*several, forms)
    if strings.is_for_datagrams(text):
        strings.udp_listen_address(text)
        return text
    kind = _kind_of(text)
    if kind is not None:
        return _endpoint_string(kind, text)
    short = _SHORT.fullmatch(text)
    if short is None:
        raise InvalidValueError(f"{text!r} is not an endpoint; {forms}")
    if short["v6"] is not None:
        _check_v6(short["v6"])
    elif short["host"] and not is_address(short["host"]):
        message = f"{short['host']!r} is not an IP address; write ADDRESS:PORT, or :PORT for every address"
        raise InvalidValueError(message)
    _listening_port(short["port"])
    return text


def _endpoint_string(kind: str, text: str) -> str:
    if kind in {"tcp", "tcp6"} and _ADDRESS_FIRST.fullmatch(text, len(kind) + 1):
        return listening(text[len(kind) + 1 :])  # as behind udp:
    arguments = strings.split_arguments(text)
    if kind not in _BUILT_IN and kind.lower() not in _installed_server_kinds():
        kinds = _BUILT_IN | _installed_server_kinds()
        _refuse_kind(kind, kinds, "ADDRESS:PORT or :PORT")
    if kind.lower() in strings.SERVER:
        strings.SERVER[kind.lower()].check(arguments)
    return text


def _several(before: str, ports: range, forms: str) -> str:
    first, last = (str(_server_port(str(port))) for port in (ports.start, ports.stop - 1))
    if not ports:
        message = f"the first port is the higher one of the two; write {before}{last}-{first}"
        raise InvalidValueError(message)
    return f"{listening(before + first, forms).removesuffix(first)}{first}-{last}"


def short_form(text: str) -> tuple[str, int] | None:
    """Return address, empty for every one, and first port of what `listening` accepted; ``None`` for a Twisted endpoint string."""
    short = _SHORT.fullmatch(text)
    if short is None:
        return None
    host = short["v6"] or short["host"]
    if host and not is_address(host):
        return None
    return host, int(short["port"].partition("-")[0])


_EVERY_ADDRESS = {"tcp": "0.0.0.0", "ssl": "0.0.0.0", "tls": "0.0.0.0", "tcp6": "::"}  # noqa: S104


@frozen
class ParsedEndpoint:
    """What `listening` accepted, taken apart.

    Attributes:
        kind: ``tcp``, ``udp``, or the kind of a Twisted endpoint string.
        host: Its address; empty for every one of both families, or if it has none.
        port: Its first port; 0 for any, or if it has none.
        named: The arguments of an endpoint string.
    """

    kind: str
    host: str = ""
    port: int = 0
    named: Mapping[str, str] = {}

    @property
    def is_by_port(self) -> bool:
        return self.kind in {"tcp", "tcp6", "udp"}


@lru_cache(1024)
def parse_endpoint(text: str) -> ParsedEndpoint:
    """Take apart what `listening` accepted."""
    if (several := strings.split_ports(text)) is not None:
        return parse_endpoint(f"{several[0]}{several[1].start}")
    if strings.is_for_datagrams(text):
        return ParsedEndpoint("udp", *strings.udp_listen_address(text))
    short = short_form(text)
    if short is not None:
        return ParsedEndpoint("tcp", *short)
    arguments = strings.split_arguments(text)
    kind = arguments.kind.lower()
    if kind == "haproxy":  # in front of another one
        return attrs.evolve(parse_endpoint(text.partition(":")[2]), kind=kind)
    named = strings.SERVER[kind].check(arguments) if kind in strings.SERVER else {}
    host = named.get("interface") or _EVERY_ADDRESS.get(kind, "")
    return ParsedEndpoint(kind, host, int(named.get("port", 0)), named)


@frozen
class ServerKind:
    """Servers that rules name as ``WORD:TEXT``, and whose addresses are found by more than a name.

    Attributes:
        word: How they begin; it is the `kind` of each `Server`.
        read: Reads ``WORD:TEXT`` with the settings, and with the options that are given, by name; raises `InvalidValueError`.
        options: What reads its own options.
        flags: Its own options without a value.
        finders: Makes, with the reactor, what finds them: `txmux.backends.names.addresses.ServerFinders`.
    """

    word: str
    read: Callable[..., Server]
    options: Mapping[str, Callable[[str], Any]]
    flags: tuple[str, ...]
    finders: Callable[[Any], Any]


def server(
    text: str,
    kind_of: Callable[[str], ServerKind | None] = lambda _: None,
    settings: Settings | None = None,
) -> Server:
    """Read one line of ``server``: ``HOST:PORT``, ``unix:/path``, ``srv:NAME`` …, and options in any order.

    `kind_of` finds those that a feature reads, see `txmux.rules.installed.server_kind_of`, and needs `settings`.
    """
    words = split_words(text)
    if not words:
        raise InvalidValueError("an empty text is not a server; write HOST:PORT or unix:/path")
    if _NAME_ASKED_FOR.search(text):
        message = f"{text!r} is not a server; for the name that a client asks for write {{sni}}:443 with 'allow_names' in a [backend]"
        raise InvalidValueError(message)
    if words[1:2] == ["="]:
        del words[1]
    settings = settings or Settings()
    messages: list[str] = []
    made, options = Server("", "tcp"), {}
    kind = None
    try:
        kind = kind_of(words[0])
        made = kind.read(words[0], settings) if kind else _server(words[0])
    except InvalidValueError as error:
        messages += error.messages
    try:
        options = _server_options(words[1:], kind)
    except InvalidValueError as error:
        messages += error.messages
    if messages:
        raise InvalidValueError(*messages)
    if kind is not None:
        own = {name: options.pop(name) for name in (*kind.options, *kind.flags) if name in options}
        made = kind.read(words[0], settings, **own)
    return attrs.evolve(made, **options)


def name_server(text: str) -> tuple[str, int]:
    """Read ``ADDRESS``, ``ADDRESS:PORT``, ``V6`` or ``[V6]:PORT`` of a name server."""
    if is_address(text):
        return text, _NAME_SERVER_PORT
    short = _SHORT.fullmatch(text)
    host = (short["v6"] or short["host"]) if short else text.strip("[]")
    if not is_address(host) or (short is None and text != f"[{host}]"):
        message = f"{text!r} is not the IP address of a name server; write for example 127.0.0.1:8600 or [::1]:53"
        raise InvalidValueError(message)
    return host, _server_port(short["port"]) if short else _NAME_SERVER_PORT


def no_proxy_protocol(text: str) -> str:
    """Return why a server cannot be sent a PROXY protocol header, or nothing."""
    place = next(iter(text.split()), "")
    if _SHORT.fullmatch(place) is None and (_kind_of(place) or "").lower() in {"ssl", "tls"}:
        return (
            f"{place!r} would get the PROXY header inside TLS, where no server looks for it; write "
            "'server = HOST:PORT' with 'tls = yes', or 'proxy_protocol = off'"
        )
    return ""


def _server_options(words: Sequence[str], kind: ServerKind | None) -> dict[str, Any]:
    readers, flags = _READERS, _FLAGS
    if kind is not None:
        readers, flags = {**readers, **kind.options}, (*flags, *kind.flags)
    return read_options(words, readers, flags, of="a server")


def _weight(text: str) -> int:
    if text == "0":
        raise InvalidValueError("would leave no client to the server; write down instead")
    return whole_number(1, MOST_WEIGHT)(text)


_READERS: Mapping[str, Callable[[str], Any]] = {
    "weight": _weight,
    "max_connections": whole_number(0, 1_000_000_000),
}
_FLAGS: tuple[str, ...] = ("backup", "down", "final")


def _server(text: str) -> Server:
    if strings.is_handover(text):
        raise InvalidValueError(
            f"{text!r} is not a server to connect to, so nothing else of a [backend] would count; "
            "write it where this backend is named"
        )
    if strings.is_for_datagrams(text):
        return strings.datagram_server(text)
    short = _SHORT.fullmatch(text)
    kind = (_kind_of(text) or "").lower()
    # A name and a number is a host even where a plugin has that name: no such plugin takes one number only.
    is_host = short is not None and (short["port"].isdecimal() or short["port"] == PORT)
    if kind and (not is_host or kind in {*_BUILT_IN, "tls"}):
        return _endpoint(text, kind, host_like=short is not None)
    if short is None:
        bare = text.strip("[]")
        if _HOST_NAME.fullmatch(text) or is_address(bare) or text in {LOCAL, *NAMES}:
            raise InvalidValueError(f"{text!r} has no port; write {bracketed(bare)}:PORT")
        message = f"{text!r} is not a server; write HOST:PORT, [V6]:PORT or unix:/path"
        raise InvalidValueError(message)
    host = strings.server_host(short["host"]) if short["v6"] is None else _check_v6(short["v6"])
    return Server(text, "tcp", host=host, port=strings.server_port(short["port"]))


def _endpoint(text: str, kind: str, *, host_like: bool) -> Server:
    if kind == "srv":
        return Server(text, "srv", host=_service_name(text[4:]))
    if kind not in _BUILT_IN and kind not in _installed_client_kinds():
        if host_like:
            _server_port(text.rpartition(":")[2])
        _refuse_kind(kind, _BUILT_IN | _installed_client_kinds(), "HOST:PORT or [V6]:PORT")
    arguments = strings.split_arguments(text)
    # What a plugin that is not Twisted's own takes, only its author knows.
    named = strings.CLIENT[kind].check(arguments) if kind in strings.CLIENT else {}
    if kind == "tcp" and named.keys() == {"host", "port"}:
        return Server(text, "tcp", host=named["host"], port=int(named["port"]))
    if kind == "unix" and named.keys() == {"path"}:
        return Server(text, "unix", path=str(file_path(named["path"])))
    return Server(text, "endpoint")


def _service_name(text: str) -> str:
    """Check the name of an SRV record (RFC 2782), ``_service._proto.name``."""
    service, _, rest = text.partition(".")
    transport, _, domain = rest.partition(".")
    if ":" in text:
        meant = f"srv:{text.partition(':')[0]}"
        raise InvalidValueError(f"{text!r}: the port is in the SRV record; write {meant}")
    if not (_LIKE_SERVICE.fullmatch(service) and _LIKE_SERVICE.fullmatch(transport) and domain):
        raise InvalidValueError(
            f"{text!r} is not a name of an SRV record; write for example srv:_ssh._tcp.example.com"
        )
    if transport.lower() == "_udp":
        raise InvalidValueError(f"{text!r} is for UDP; write srv:{service}._tcp.{domain}")
    return strings.host_name(text)


def _kind_of(text: str) -> str | None:
    prefix, colon, rest = text.partition(":")
    is_url = rest.startswith("//") and prefix != "unix"
    return prefix if colon and _KIND.fullmatch(prefix) and not is_url else None


def _refuse_kind(kind: str, known: frozenset[str], short_forms: str) -> NoReturn:
    raise InvalidValueError(
        f"there is no endpoint type {kind!r}; write {short_forms}{suggestion(kind, sorted(known))}"
    )


def _check_v6(text: str) -> str:
    if not _is_v6(text):
        raise InvalidValueError(f"{text!r} is not an IPv6 address; write [2001:db8::1]:PORT")
    scope = strings.link_scope(text)
    if scope:
        raise InvalidValueError(
            f"{text!r} is an address of one link; write its interface, too: [{text}{scope}]:PORT"
        )
    return text


def _is_v6(text: str) -> bool:
    return ":" in text and is_address(text)


@cache
def _installed_server_kinds() -> frozenset[str]:
    prefixes = frozenset(p.prefix.lower() for p in getPlugins(IStreamServerEndpointStringParser))
    return prefixes - {"stdio"}  # one pair of streams, where no client can connect


@cache
def _installed_client_kinds() -> frozenset[str]:
    plugins = getPlugins(IStreamClientEndpointStringParserWithReactor)
    return frozenset(p.prefix.lower() for p in plugins)


SERVER_KEYS = frozenset({"backend", "default", "fallback", "server", "silent"})
"""The keys that take a server."""
_ENDPOINT_KEYS = {"endpoint": strings.SERVER, **dict.fromkeys(SERVER_KEYS, strings.CLIENT)}

_NAMED_FILES = ("privateKey", "certKey", "extraCertChain", "dhParameters", "certificate")


def names_files(section: Section) -> bool:
    """Return whether an endpoint string of a section names a file."""
    return any(
        files_of(_ENDPOINT_KEYS[key], item.text.split()[0])
        for key in _ENDPOINT_KEYS.keys() & section.entries
        for item in section.items(key)
    )


def missing_files(sections: Iterable[Section]) -> Iterator[Problem]:
    """Find files that are not there; relative paths start at the current folder, as in Twisted."""
    for section in sections:
        for key in _ENDPOINT_KEYS.keys() & section.entries:
            for number, item in enumerate(section.items(key)):
                for message in _missing_files(key, item.text.split()[0]):
                    yield section.problem(message, key, number)


def _missing_files(key: str, text: str) -> Iterator[str]:
    for name, path in files_of(_ENDPOINT_KEYS[key], text).items():
        try:
            check_file(path)
        except InvalidValueError as error:
            yield f"{name}: {error}"


def files_of(forms: Mapping[str, strings.Form], text: str) -> dict[str, Path]:
    """Return the files that an endpoint string names, by its options; `forms` are those of servers or of clients."""
    kind = text.partition(":")[0].lower()
    if kind not in {"ssl", "tls"} or short_form(text) is not None:
        return {}
    try:
        given = forms[kind].check(strings.split_arguments(text))
    except InvalidValueError:
        return {}  # reported already
    if (forms, kind) == (strings.SERVER, "ssl"):
        given.setdefault("privateKey", "server.pem")  # what Twisted takes then
    return {name: Path(given[name]) for name in _NAMED_FILES if given.get(name)}

"""The ``bind`` lines of an ``haproxy.cfg``, as endpoints, and files beside it."""

import errno
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePath

import attrs

from txmux.transport import bracketed
from txmux_convert.terms import InexpressibleError
from txmux_convert.writer import ConfigLine, Draft, DraftSection, Origin, acting_as, read_named

_LARGEST = 1 << 20


@attrs.frozen
class Secured:
    """TLS that ends at a ``bind``.

    Attributes:
        alpn: The protocols of ALPN, the preferred first.
        client_ca: The file of client authorities; empty if no certificate is asked for.
        client_crl: The file of revoked client certificates.
        client: ``optional`` if clients without a certificate are served, too.
        lenient: Whether clients with invalid certificates are served.
    """

    certificates: tuple[str, ...]
    alpn: tuple[str, ...] = ()
    client_ca: str = ""
    client_crl: str = ""
    client: str = ""
    minimum: str = ""
    lenient: bool = False


@attrs.define(eq=False)
class SideFiles:
    """Files beside a configuration.

    Attributes:
        draft: What is made of that.
        read: Names of the files that were read.
        pending: Messages about the test that was read last, whose line is not known yet.
        notes: Messages with their lines, reported at the end.
    """

    draft: Draft
    read: list[str] = attrs.field(factory=list)
    pending: list[str] = attrs.field(factory=list)
    notes: list[tuple[Origin, str]] = attrs.field(factory=list)

    @property
    def folder(self) -> Path:
        return Path(self.draft.path).parent

    def report_at(self, line: int) -> None:
        self.notes += [(line, message) for message in self.pending]
        self.pending.clear()

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file without blank lines and comments."""
        if "\0" in name:
            raise FileNotFoundError(errno.ENOENT, "no file has such a name")
        text = read_named(self.folder / name, self.draft, _LARGEST).decode("latin-1")
        self.read.append(name)
        lines = (line.strip() for line in text.split("\n"))
        return [line for line in lines if line and not line.startswith("#")]

    def certificates(self, name: str) -> list[str]:
        """Return the PEM files of a path: those of a folder, or the file and its separate key file."""
        path = self.folder / name
        # What cannot be read is reported when the rules are read.
        with suppress(OSError), acting_as(self.draft.author):
            if path.is_dir():
                files = sorted(file.name for file in path.iterdir() if file.suffix not in _OTHERS)
                return [str(PurePath(name) / file) for file in files if not file.startswith(".")]
            if b"PRIVATE KEY" not in read_named(path, self.draft):
                keys = (f"{name}.key", str(PurePath(name).with_suffix(".key")))
                return [name, *[key for key in keys if (self.folder / key).is_file()][:1]]
        return [name]


_OTHERS = frozenset({".issuer", ".key", ".ocsp", ".sctl"})
"""Suffixes of files beside certificates."""


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


_ADDRESS = re.compile(r"(?:(?:ipv[46]|(?:mp)?tcp[46]?)@)?(?P<host>.*):(?P<port>[^:]*)")
_VALUES = {
    *("alpn", "backlog", "ca-file", "ca-verify-file", "ciphers", "ciphersuites", "crl-file"),
    *("crt", "crt-list"),
    *("ecdhe", "gid", "group", "id", "interface", "level", "maxconn", "mode", "mss", "name"),
    *(
        "ca-ignore-err", "ca-sign-file", "crt-ignore-err", "namespace", "nbconn", "nice", "npn",
        "process", "proto", "shards",
    ),
    *("ssl-max-ver", "ssl-min-ver", "tcp-ut", "thread", "uid", "user", "verify"),
}  # fmt: skip
_ANY = frozenset({"", "*", "0.0.0.0"})  # noqa: S104 - it is compared
TAKEN = {"accept-proxy", "maxconn", "mode", "v4v6", "v6only"}
WITHOUT_EFFECT = {
    "backlog": "txmux asks for the system's longest queue",
    "defer-accept": "a client that says nothing is not accepted; by txmux it is, and waits",
    "id": "a number for the statistics",
    "name": "a text for the statistics",
}
"""Parameters that have no counterpart and no report, and why they need none."""

_OF_TLS = (
    *("alpn", "ca-file", "ca-verify-file", "crl-file", "crt", "crt-list"),
    *("ssl", "ssl-min-ver", "verify"),
)
_IGNORED = frozenset({"ca-ignore-err", "crt-ignore-err"})
_ASKING = frozenset({"required", "optional"})
_OWN_VERIFICATION = re.compile(r"\[[^]]*\b(?:verify|ca-file|ca-verify-file|crl-file)\b")
"""In a list of certificates: options about those of clients, for one certificate alone."""
_MOST_PORTS = 200
_NARROWING = {
    "accept-netscaler-cip": "its clients begin with a header that txmux does not know",
    "gid": "the permissions of the socket",
    "group": "the permissions of the socket",
    "interface": "it would listen on every interface",
    "namespace": "it is in another network namespace",
    "ca-sign-file": "it makes certificates by itself",
    "strict-sni": "clients of other names are turned away; name those that are served in match = tls sni=",
    "transparent": "it listens on addresses of others",
    "uid": "the permissions of the socket",
    "user": "the permissions of the socket",
}


def address(text: str) -> tuple[str, str] | None:
    """Split an address.

    Returns:
        The host, without brackets and empty for every address, and the port; ``None`` for anything else.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or "@" in match["host"]:
        return None
    host = match["host"].removeprefix("[").removesuffix("]")
    is_ipv6 = text.startswith(("ipv6@", "tcp6@", "mptcp6@"))
    return ("::" if is_ipv6 and host in {"", "*"} else host), match["port"]


def is_multipath(text: str) -> bool:
    return text.startswith(("mptcp@", "mptcp4@", "mptcp6@"))


def unix_path(text: str) -> str:
    """Return the path of a UNIX socket, or nothing."""
    path = text.removeprefix("unix@")
    return path if path.startswith("/") else ""


def ports(line: ConfigLine) -> list[str]:
    """Return the ports of a ``bind`` line; one that has none is empty."""
    texts = line.value.split(",") if len(line.words) > 1 else ()
    return [pair[1] if (pair := address(text)) else "" for text in texts]


@attrs.frozen
class Bind:
    """One address to listen on."""

    line: ConfigLine
    address: str
    flags: Mapping[str, tuple[str, ...]]

    def last(self, flag: str) -> str:
        return self.flags.get(flag, ("",))[-1]


def read_binds(lines: Iterable[ConfigLine], *, split: bool) -> Iterator[Bind]:
    """Read the addresses of ``bind`` lines, of which each may have several, and ranges of ports; `split` these."""
    binds = [bind for line in lines for bind in _of_line(line, split=split)]
    addresses = [(bind, address(bind.address) or ("", "")) for bind in binds]
    with_ipv4 = {
        one for _, (host, port) in addresses if host in _ANY for one in _each_port(f":{port}")
    }
    for bind, (host, port) in addresses:
        # Without a socket for IPv4, Linux gives its clients to that of IPv6.
        alone = host == "::" and with_ipv4.isdisjoint(_each_port(f":{port}"))
        alone = alone and "v6only" not in bind.flags
        yield attrs.evolve(bind, flags={**bind.flags, "v4v6": ("",)}) if alone else bind


def _of_line(line: ConfigLine, *, split: bool) -> Iterator[Bind]:
    flags: dict[str, tuple[str, ...]] = {}
    rest = list(line.words[2:])
    while rest:
        flag = rest.pop(0)
        flags[flag] = (*flags.get(flag, ()), rest.pop(0) if flag in _VALUES and rest else "")
    for text in line.value.split(",") if len(line.words) > 1 else ():
        each = _each_port(text)
        places = each if split and len(each) <= _MOST_PORTS else [text]
        yield from (Bind(line, place, flags) for place in places)


def _each_port(text: str) -> list[str]:
    before, _, ports = text.rpartition(":")
    low, _, high = ports.partition("-")
    if not (low.isdecimal() and high.isdecimal() and int(low) <= int(high) < 2**16):
        return [text]
    return [f"{before}:{port}" for port in range(int(low), int(high) + 1)]


def lost(bind: Bind) -> list[str]:
    """Return the reasons why txmux cannot listen there as HAProxy does."""
    why = [f"{flag}: {reason}" for flag, reason in _NARROWING.items() if flag in bind.flags]
    if "ssl" in bind.flags and not {"crt", "crt-list"} & bind.flags.keys():
        why.append("ssl: it names no certificate")
    if bind.flags.keys() >= {"ca-file", "ca-verify-file"} and bind.last("verify") in _ASKING:
        why.append("ca-verify-file: tls_client_ca is one file, which has to have both")
    return why


def bind_context(bind: Bind, files: SideFiles) -> BindContext:
    """Return the context of a bind line; `InexpressibleError` if its list of certificates is none of txmux's."""
    host, port = address(bind.address) or ("", "")
    secured = None
    if "ssl" in bind.flags:
        named = [*bind.flags.get("crt", ())]
        for path in bind.flags.get("crt-list", ()):
            named += _listed(path, files)
        verify = bind.last("verify")
        asks = verify in _ASKING
        authorities = bind.last("ca-file") or bind.last("ca-verify-file")
        secured = Secured(
            tuple(dict.fromkeys(file for path in named for file in files.certificates(path))),
            tuple(filter(None, bind.last("alpn").split(","))),
            authorities if asks else "",
            bind.last("crl-file") if asks else "",
            verify if verify == "optional" and authorities else "",
            bind.last("ssl-min-ver").removeprefix("TLSv"),
            not _IGNORED.isdisjoint(bind.flags),
        )
    return BindContext(files, secured, host.replace("*", ""), port)


def _listed(path: str, files: SideFiles) -> list[str]:
    try:
        lines = files.lines(path)
    except OSError as error:
        why = f"{path} cannot be read here: {error.strerror or error}"
        raise InexpressibleError(why) from None
    if any(map(_OWN_VERIFICATION.search, lines)):
        raise InexpressibleError(f"{path}: clients of one certificate show theirs, others do not")
    return [line.split()[0] for line in lines]


def listen(bind: Bind, name: str, listeners: list[DraftSection], draft: Draft) -> None:
    """Write an endpoint into a listener of the frontend, or into a new one."""
    flags, line = bind.flags, bind.line
    multipath = is_multipath(bind.address)
    proxied = "accept-proxy" in flags
    section = _listener(line, name, listeners, draft, proxied=proxied, multipath=multipath)
    section.add("endpoint", _endpoint(bind.address, flags), line.number)
    if multipath:
        section.add_default("mptcp", "yes", line.number)
    if "accept-proxy" in flags and unix_path(bind.address):
        section.add("accept_proxy_from", "unix", line.number)
    understood = {*TAKEN, *WITHOUT_EFFECT, *(_OF_TLS if "ssl" in flags else ())}
    if bind.last("verify") == "optional":
        understood |= _IGNORED
        if not flags.keys() >= _IGNORED:
            section.warn(
                line,
                "verify optional: HAProxy refuses a certificate that is not valid, and txmux takes it for none",
            )
    unknown = [flag for flag in flags if flag not in understood]
    if unknown:
        section.warn(line, f"no counterpart of {', '.join(unknown)}")
    if "maxconn" in flags:
        section.entries.pop("max_connections", None)
        section.add("max_connections", bind.last("maxconn"), line.number)


def _listener(
    line: ConfigLine,
    name: str,
    listeners: list[DraftSection],
    draft: Draft,
    *,
    proxied: bool,
    multipath: bool,
) -> DraftSection:
    for listener in listeners:
        kind = "accept_proxy_from" in listener.entries, "mptcp" in listener.entries
        if kind == (proxied, multipath):
            return listener
    listener = draft.section("listen", name, line.number)
    if proxied:
        listener.add("accept_proxy_from", "0.0.0.0/0, ::/0", line.number)
    listeners.append(listener)
    return listener


def _endpoint(text: str, flags: Mapping[str, tuple[str, ...]]) -> str:
    path, pair = unix_path(text), address(text)
    if path:
        return f"unix:{path}:mode={flags['mode'][-1]}" if "mode" in flags else f"unix:{path}"
    if pair is None:
        return text
    host, port = pair
    if host == "::" and "v4v6" in flags and "v6only" not in flags:
        return f":{port}"
    # In HAProxy, no address means IPv4 only.
    return f"{'0.0.0.0' if host in _ANY else bracketed(host)}:{port}"  # noqa: S104 - it is written, not opened

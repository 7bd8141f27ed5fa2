"""A ``stunnel.conf``, of stunnel 4.50 to 5.75, as rules."""

import re
from collections.abc import Sequence
from pathlib import Path

import attrs

from txmux.transport import is_address
from txmux_convert.matching import match_line
from txmux_convert.values import COMMON_NAME, is_public, place, split_address
from txmux_convert.writer import (
    ConfigLine,
    ConvertError,
    Draft,
    DraftSection,
    acting_as,
    read_named,
)

_USERS = {"setuid": "user", "setgid": "group"}
_PROTOCOLS = {"yes": ("", "connect"), "no": ("", "pgsql", "proxy")}  # by `client`
_CHECKS = {"checkhost": "", "checkip": "ip:", "checkemail": "email:"}
_ASIDE = ("chroot", "debug", "foreground", "log", "logid", "output", "pid", "syslog")
_NO_PEM = re.compile(r"(.*\.(p12|pfx)|(pkcs11|store|engine):.*)?")
WITHOUT_EFFECT = {
    "(?!session).* = no": "switches off what txmux does not do either",
    "capath = .*": "counts where certificates are verified, and is reported there",
    "(delay|retry) = .*": "names are looked up again anyway, and servers tried again",
    "(egd|rnd.*) = .*": "where random numbers come from",
    "(execargs|pty) = .*": "of exec, with which the service is left out",
    "failover = .*": "counts with several connect, and is read or reported there",
    "options = (?!-|no_ticket|no_tlsv1\\.[23]).*": "older versions than TLS 1.2, and workarounds, are off here",
    "service = .*": "the name in the log",
    "set[ug]id = .*": "user and group of [txmux]; those of a service count for exec alone",
    "socket = [alr]:(tcp_nodelay|so_keepalive|so_reuseaddr)=(1|yes)": "txmux always sets these",
    "sslversion.* = (all|tlsv1\\.3)|sslversionmin = tlsv1\\.2": "TLS 1.2 and 1.3 are spoken",
    "stack = .*": "the memory of a thread",
    "timeout(busy|close|connect|idle) = .*": "counts where something waits so, and is read there",
}
"""Lines in small letters that have no counterpart and no report, and why they need none."""

_NEEDLESS = re.compile("|".join(WITHOUT_EFFECT))
_WARNED = {
    "txmux decides that": "(cipher|compress|curve|fips|reneg|security|session|ticket).* = .*|options = no_ticket",
    "keepalive of [listen] is for both sides": "socket = (?!.*(bindtodevice|v6only|freebind)).*",
    "TLS 1.3 is spoken, too": r"sslversion(max)? = tlsv1\.2|options = no_tlsv1\.3",
}


@attrs.frozen
class _Service:
    """A section, with the global defaults before its lines; `used` are the options that were read."""

    name: str
    number: int
    lines: list[ConfigLine]
    used: set[str] = attrs.field(factory=set)

    def all(self, *names: str) -> list[ConfigLine]:
        self.used.update(names)
        return [line for line in self.lines if line.name.lower() in names]

    def last(self, *names: str) -> list[ConfigLine]:
        """Return the last line of each option, which overrides the earlier ones."""
        return [line for name in names for line in self.all(name)[-1:]]

    def text(self, name: str, default: str = "") -> str:
        return next((line.value.lower() for line in self.last(name)), default)

    @property
    def primary(self) -> str:
        pairs = [line.value.partition(":") for line in self.last("sni")]
        return pairs[0][0] if pairs and self.text("client") != "yes" else ""

    @property
    def ending(self) -> str:
        return "close" if self.text("reset") == "no" else "reset"

    def why_left_out(self) -> str:
        if self.text("transparent") in {"destination", "both"}:
            return "txmux cannot ask the system for an address that it has replaced"
        if self.all("exec") or not self.all("connect"):
            return "txmux starts no programs; have it listen, and connect there"
        if self.text("protocol") not in _PROTOCOLS.get(self.text("client", "no"), ()):
            return f"protocol = {self.text('protocol', 'none')} with client = {self.text('client', 'no')} has no counterpart"
        if self.text("client") != "yes" and _NO_PEM.fullmatch(self.text("cert")):
            return "it has no cert in a PEM file"
        if any(_verification(self)[1:]) and not self.all("cafile", "capath"):
            return "it has no CAfile"
        return "" if self.all("accept") or self.primary else "it has no accept"


def convert_stunnel(data: bytes, draft: Draft) -> None:
    first, *services = _read(data, draft.path, draft, [_Service("", 1, [])])
    if not services:
        raise ConvertError(f"{draft.path}: there is no [service] in it, so inetd listens for it")
    for line in first.last(*_USERS)[:1]:
        section = draft.section("txmux", line=line)
        for user in first.last(*_USERS):
            section.add(_USERS[user.name.lower()], user.value, user)
    by_primary: dict[str, list[_Service]] = {}
    for service in services:
        why = service.why_left_out()
        by_primary.setdefault(service.primary, []).extend([] if why else [service])
        if why:
            draft.flag(service.number, f"[{service.name}] is left out: {why}")
    primary = {"", *(service.name for service in by_primary.get("", ()))}
    for other in [one for name in by_primary.keys() - primary for one in by_primary[name]]:
        why = f"its sni is for [{other.primary}], which is not there"
        draft.flag(other.number, f"[{other.name}] is left out: {why}")
    for service in by_primary.get("", ()):
        _convert(service, by_primary.get(service.name, ()), draft)


def _read(data: bytes, path: str, draft: Draft, found: list[_Service]) -> list[_Service]:
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        text, here = line.decode("latin-1").strip(), draft.line_in(path, number)
        name, _, value = (part.strip() for part in text.partition("="))
        if not text or text[0] in "#;":
            continue
        if text[0] == "[" and text[-1] == "]":
            found.append(_Service(text[1:-1], here, list(found[0].lines)))
        elif name.lower() != "include" or path != draft.path:
            found[-1].lines.append(ConfigLine((name, value), here))
        else:
            try:
                with acting_as(draft.author):
                    files = sorted(filter(Path.is_file, (Path(path).parent / value).iterdir()))
                for file in files:
                    _read(read_named(file, draft), str(file), draft, found)
            except (OSError, ValueError) as error:
                draft.flag(here, f"include = {value}: {error}")
    return found


def _convert(service: _Service, others: Sequence[_Service], draft: Draft) -> None:
    section = draft.section("listen", service.name, service.number)
    for line in service.all("accept"):
        host, port = split_address(line.value, has_port=True)
        host = "" if host == "::" else host or "0.0.0.0"  # noqa: S104
        section.add("endpoint", place(host, port), line)
    if service.text("client") == "yes":
        backend = _backend(service, "connect", draft)
        section.add("default", backend.name)
        _add_tls(service, backend)
    else:
        section.add("detect_timeout", f"{service.text('timeoutbusy', '300')}s")
        section.add("silent", service.ending)
        section.add("default", service.ending)
        for other in others:
            pattern = other.text("sni").partition(":")[2]
            is_name = re.fullmatch(r"\*?[\w-][\w.-]*|\*\.[\w.-]+|\*", pattern)
            _route(other, section, pattern if is_name else f"~{re.escape(pattern)}")
        _route(service, section, "")
    for each in (service, *others):
        _report(each, section)


def _route(service: _Service, listener: DraftSection, names: str) -> None:
    draft, redirect = listener.draft, service.last("redirect")
    backend = _backend(service, "connect", draft)
    outcome = _backend(service, "redirect", draft) if redirect else backend
    matcher = "postgres" if service.text("protocol") == "pgsql" else "tls"
    names = names or ("*,none" if matcher == "postgres" else "")
    section = draft.section("route", f"{service.name}-tls", service.number)
    section.add("match", match_line(matcher, [("sni", names)] if names else []))
    section.add("under", listener.name)
    for line in service.last("cert", "key"):
        section.add_path("terminate_tls", line.value, line)
    words = _client_certificates(service, section)
    section.add("backend", outcome.name)
    if "tlsv1.3" in {service.text("sslversion"), service.text("sslversionmin")}:
        section.add("tls_minimum", "1.3")
    section.add_each("allow_client", [] if redirect else words)
    for word in (words or ["any"]) if redirect else ():
        inner = draft.section("route", service.name, redirect[0])
        inner.flag(redirect[0], "clients that wait for the server's greeting are redirected, too")
        inner.add_set(match="any", under=section.name, client_cert=word, backend=backend.name)


def _verification(service: _Service) -> tuple[bool, bool, bool]:
    """Return whether a certificate is required, its chain is verified, and it has to be in ``CAfile`` itself."""
    level = service.text("verify", "0")
    chain = service.text("verifychain") == "yes" or level in {"1", "2", "3"}
    peer = service.text("verifypeer") == "yes" or level in {"3", "4"}
    required = service.text("requirecert") == "yes" or level in {"2", "3", "4"}
    return required or (level == "0" and (chain or peer)), chain, peer


def _client_certificates(service: _Service, section: DraftSection) -> list[str]:
    """Write which certificates clients need; return a word for each name of which one is enough."""
    required, chain, peer = _verification(service)
    words = [f"san={_CHECKS[line.name.lower()]}{line.value}" for line in service.all(*_CHECKS)]
    files = service.last("cafile", "capath", "crlfile", "crlpath")
    why = "stunnel takes a common name without subjectAltName, too; if yours have one, add a line with cn="
    if not (chain or peer):
        files, words, why = [], [], "txmux asks for no certificate that it does not verify"
    elif not required or service.last("redirect"):
        section.add("tls_client", "optional")
        why = "txmux takes a certificate that is not valid for none"
    for line in files:
        key = "tls_client_ca" if line.name.lower().startswith("ca") else "tls_client_crl"
        section.add_path(key, line.value, line)
    if peer:
        why = "verifyPeer is for the certificates in CAfile, tls_client_ca also for those that they issued"
    if peer or required != (chain or peer) or (words and service.all("checkhost")):
        section.flag(service.number, f"[{service.name}] verify: {why}")
    return words


def _backend(service: _Service, option: str, draft: Draft) -> DraftSection:
    lines = service.all(option)
    name = service.name if option == "connect" else f"{service.name}-{option}"
    section = draft.section("backend", name, lines[0])
    if service.text("protocol") == "connect":
        section.add("via", f"http://{lines[0].value}", lines[0])
        lines = service.last("protocolhost")
    addresses = [split_address(line.value, has_port=True) for line in lines]
    for line, (host, port) in zip(lines, addresses, strict=True):
        section.add("server", place(host or "localhost", port), line)
    is_first = len(lines) > 1 or not all(h[:1] in {"", "/"} or is_address(h) for h, _ in addresses)
    is_first = is_first and service.text("failover") != "rr"
    if len(lines) > 1 and not is_first:
        section.flag(lines[0], "with failover = rr, stunnel keeps resumed sessions at one server")
    source = "client" if service.text("transparent") in {"source", "yes"} else ""
    section.add_set(
        balance="first" if is_first else "",
        retries=str(len(lines) - 1) if len(lines) > 3 else "",
        proxy_protocol="v1" if service.text("protocol") == "proxy" else "",
        source=source or service.text("local"),
        connect_timeout=f"{service.text('timeoutconnect', '10')}s",
        idle_timeout=f"{service.text('timeoutidle', '43200')}s",
        fallback=service.ending,
    )
    return section


def _add_tls(service: _Service, section: DraftSection) -> None:
    section.add("tls", "yes")
    _, chain, peer = _verification(service)
    checked = [line.value for line in service.all("checkhost", "checkip")]
    server = service.last("protocolhost") or service.all("connect")
    host = split_address(server[0].value, has_port=True)[0] or "localhost"
    sent = [line.value for line in service.last("sni")] or [host]
    name = (checked or sent)[0]
    if name not in {"", host}:
        section.add("tls_name", name, service.number)
    for key, options in (("tls_ca", ["cafile"]), ("tls_client_certificate", ["cert", "key"])):
        for line in service.last(*options):
            section.add_path(key, line.value, line)
    why = "" if is_public(service.text("cafile")) else COMMON_NAME
    if not (chain or peer):
        why = "stunnel takes any certificate; name in tls_ca the authority of the server's, and in tls_name its name, unless the system trusts it for the server's host"
    elif peer or not checked or (sent != checked and not is_address(sent[0])):
        why = "one name is sent and verified; write in tls_name which one the certificate is for"
    if why:
        section.flag(service.number, f"[{service.name}] client = yes: {why}")


def _report(service: _Service, section: DraftSection) -> None:
    folders = r"ca(?!path = /etc/ssl/certs/?$)" if service.text("client") == "yes" else "ca|crl"
    for line in service.lines:
        text = f"{line.name} = {line.value}".lower()
        is_used = line.name.lower() in service.used and not text.startswith("sslversion")
        why = [reason for reason, pattern in _WARNED.items() if re.fullmatch(pattern, text)]
        if line.name.lower() in _ASIDE:
            section.draft.set_aside(line, line.name.lower())
        elif re.match(rf"({folders})path = ", text) and any(_verification(service)[1:]):
            section.flag(line, "is a folder; write its certificates into one file, and name that")
        elif not is_used and not _NEEDLESS.fullmatch(text):
            (section.warn if why else section.flag)(line, "; ".join(["has no counterpart", *why]))

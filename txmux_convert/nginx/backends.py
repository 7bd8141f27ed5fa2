"""The destinations of ``proxy_pass``, with the other ``proxy_...`` directives, as backends."""

from collections.abc import Iterable

from txmux_convert.nginx.reader import Directive
from txmux_convert.nginx.upstreams import (
    UpstreamGroup,
    add_members,
    read_group,
    single,
    split_group,
)
from txmux_convert.nginx.values import DirectiveScope, Value, Variable, duration, plain, shown
from txmux_convert.nginx.variables import NAMES_OF_TLS, Variables
from txmux_convert.routes import CLOSE, add_destinations
from txmux_convert.terms import InexpressibleError
from txmux_convert.values import COMMON_NAME, is_public, split_address
from txmux_convert.writer import Draft, DraftSection

_OF_HEADER = "$proxy_protocol_addr"
_FAR = 3
"""Servers that txmux tries by default."""

SETTINGS = (
    *("proxy_bind", "proxy_connect_timeout", "proxy_download_rate", "proxy_next_upstream"),
    *("proxy_next_upstream_tries",),
    *("proxy_protocol", "proxy_requests", "proxy_responses", "proxy_ssl", "proxy_ssl_certificate"),
    *("proxy_ssl_certificate_key", "proxy_ssl_name", "proxy_ssl_trusted_certificate"),
    *("proxy_ssl_verify", "proxy_timeout", "proxy_upload_rate", "health_check"),
    *("health_check_timeout", "resolver"),
)
"""Directives that a backend depends on."""

RESOLVER_TIMEOUT = "a name server has 1 s for its answer, and 3 s in a second round"


class Backends:
    """The backends of a file, created at first use."""

    def __init__(self, directives: Iterable[Directive], draft: Draft, variables: Variables) -> None:
        self._draft = draft
        self._variables = variables
        self._groups = {d.value.lower(): read_group(d) for d in directives if d.name == "upstream"}
        self._made: dict[object, DraftSection] = {}

    def outcome(
        self, value: Value, scope: DirectiveScope, line: int, *, by_name: bool, is_udp: bool
    ) -> str:
        """Return the name of the backend; `by_name`: nginx looks names up for each client."""
        split = self._variables.shares(value)
        text = plain(value)
        if split:
            group = split_group(split, self._group)
        elif text == "":
            return CLOSE
        else:
            group = self._group(_with_placeholder(value) if text is None else text, line)
        if not group.members:
            for origin, message in group.problems:
                self._draft.flag(origin, message)
            raise InexpressibleError(f"{group.name} has no server")
        settings = [str(scope.get(name)) for name in SETTINGS]
        is_looked_up = by_name and (text or "").lower() not in self._groups and _has_name(group)
        named = is_looked_up or any(m.resolves and m.has_name for m in group.members)
        key = (group, tuple(settings), named, is_udp)
        if key not in self._made:
            section = self._made[key] = self._draft.section("backend", group.name, group.line)
            self._fill(section, group, scope, named=named, is_udp=is_udp)
            if text is None and not split:
                add_destinations(section, "nginx", group.members[0].place, group.line)
        return self._made[key].name

    def named(self, value: Value) -> tuple[str, ...]:
        """Return the groups that ``proxy_pass`` with a client's server name and no port may mean."""
        is_name = len(value) == 1 and getattr(value[0], "name", "") in NAMES_OF_TLS
        return tuple(name for name in self._groups if is_name)

    def _group(self, text: str, line: int) -> UpstreamGroup:
        return self._groups.get(text.lower()) or single(text, line)

    def _fill(
        self,
        section: DraftSection,
        group: UpstreamGroup,
        scope: DirectiveScope,
        *,
        named: bool,
        is_udp: bool,
    ) -> None:
        answers = is_udp and scope.text("proxy_responses", "0") != "0"
        add_members(group, section, is_udp=is_udp, answers=answers)
        if group.hashed and group.hashed.value == _OF_HEADER and not _has_header(scope):
            why = "nothing for nginx without 'listen … proxy_protocol', so that all clients get one server"
            section.flag(group.hashed, f"becomes the address of the client; {_OF_HEADER} is {why}")
        if is_udp:
            if len(group.members) > 1 or _has_name(group):
                section.add("retries", "0")  # nginx sends no datagram to a second server
            scope.add(section, "unanswered_timeout", "proxy_timeout", "10m")
        else:
            _add_retries(section, group, scope)
            scope.add(section, "connect_timeout", "proxy_connect_timeout", "60s")
        scope.add(section, "idle_timeout", "proxy_timeout", "10m")
        if is_udp:
            _add_datagram_keys(section, group, scope)
        else:
            self._add_stream_keys(section, group, scope)
        _add_source(section, scope)
        if named:
            _add_resolver(section, group, scope)

    def _add_stream_keys(
        self, section: DraftSection, group: UpstreamGroup, scope: DirectiveScope
    ) -> None:
        for key in ("upload_rate", "download_rate"):
            _add_rate(section, key, scope)
        if scope.is_on("proxy_protocol"):
            section.add("proxy_protocol", "v1", scope.line("proxy_protocol"))
        if scope.is_on("proxy_ssl"):
            self._add_tls(section, group, scope)
        _add_check(section, scope)
        if group.check is not None and "check" not in section.entries:
            group.check.write(section)

    def _add_tls(self, section: DraftSection, group: UpstreamGroup, scope: DirectiveScope) -> None:
        section.add("tls", "yes", scope.line("proxy_ssl"))
        name, line = split_address(scope.text("proxy_ssl_name"))[0], scope.line("proxy_ssl_name")
        if "$" in name:
            message = f"proxy_ssl_name {name}: is left out: it is another name for each client"
            section.flag(line, message)
            name = ""
        verified = scope.is_on("proxy_ssl_verify")
        if not name and verified and group.name.lower() in self._groups:
            name = group.name
        if name:
            section.add("tls_name", name, line or group.line)
        if not verified:
            message = (
                "proxy_ssl without proxy_ssl_verify: nginx takes any certificate, and txmux verifies it; name in "
                "tls_ca its authority, and in tls_name its name, unless the system trusts it for the server's host"
            )
            section.flag(scope.line("proxy_ssl"), message)
        scope.add_files(section, "tls_ca", "proxy_ssl_trusted_certificate")
        if verified and not is_public(scope.text("proxy_ssl_trusted_certificate")):
            section.flag(scope.line("proxy_ssl_verify"), f"proxy_ssl_verify: {COMMON_NAME}")
        scope.add_files(
            section, "tls_client_certificate", "proxy_ssl_certificate", "proxy_ssl_certificate_key"
        )


def _add_datagram_keys(section: DraftSection, group: UpstreamGroup, scope: DirectiveScope) -> None:
    answers = scope.text("proxy_responses")
    if answers.isdecimal() and answers != "0":
        section.add("answers", answers, scope.line("proxy_responses"))
    elif answers:
        message = f"proxy_responses {answers}: has no counterpart; see unanswered_timeout"
        section.warn(scope.line("proxy_responses"), message)
    if scope.is_on("proxy_protocol"):
        section.add("proxy_protocol", "v2", scope.line("proxy_protocol"))
        section.warn(
            scope.line("proxy_protocol"),
            "proxy_protocol: nginx puts the header before the first datagram alone, txmux before each",
        )
    if group.check is not None:
        group.check.write(section, is_udp=True)
    for directive in filter(None, map(scope.get, ("proxy_requests", "health_check"))):
        section.flag(directive, "has no counterpart for UDP that is known here")


def _add_retries(section: DraftSection, group: UpstreamGroup, scope: DirectiveScope) -> None:
    tries = scope.text("proxy_next_upstream_tries", "0")
    line = scope.line("proxy_next_upstream_tries") or scope.line("proxy_next_upstream")
    if not scope.is_on("proxy_next_upstream", default=True):
        section.add("retries", "0", line)
    elif tries.isdecimal() and tries != "0":
        section.add("retries", str(int(tries) - 1), line)
    elif len(group.members) > _FAR:
        section.add("retries", str(len(group.members) - 1), group.line)


def _add_rate(section: DraftSection, key: str, scope: DirectiveScope) -> None:
    if scope.text(f"proxy_{key}", "0") != "0":
        scope.add(section, key, f"proxy_{key}", "", sized=True)
        for item in section.entries.pop(key, ())[:1]:
            section.add(key, f"{item.text}/s", item.line)


def _add_source(section: DraftSection, scope: DirectiveScope) -> None:
    directive = scope.get("proxy_bind")
    if directive is None or directive.value == "off":
        return
    address, transparent = directive.value, "transparent" in directive.parameters
    host = address.rpartition(":")[0] if "$remote_port" in address else address
    if transparent and host in {"$remote_addr", "${remote_addr}"}:
        section.add("source", "client", directive)
    elif "$" in address:
        section.flag(directive, "is left out: it is another address for each client")
    else:
        section.add("source", address, directive)
        if transparent:
            section.warn(directive, "the address has to be one of this machine")


def _add_check(section: DraftSection, scope: DirectiveScope) -> None:
    directive = scope.get("health_check")
    if directive is None:
        return
    given = dict(word.partition("=")[::2] for word in directive.parameters)
    words = ["tcp", f"interval={duration(given.pop('interval', '5s'))}"]
    for name, key, default in (
        ("passes", "rise", "1"),
        ("fails", "fall", "1"),
        ("port", "port", ""),
    ):
        value = given.pop(name, default)
        words += [f"{key}={value}"] * bool(value)
    words.append(f"timeout={duration(scope.text('health_check_timeout', '5s'))}")
    section.add("check", " ".join(words), directive)
    if given:
        section.flag(directive, f"no counterpart of {', '.join(given)}")


def _add_resolver(section: DraftSection, group: UpstreamGroup, scope: DirectiveScope) -> None:
    own = DirectiveScope(group.block, tuple(scope.all("resolver")))
    directive, timeout = own.get("resolver"), own.get("resolver_timeout")
    names = [m.place for m in group.members if m.has_name]
    if directive is None:
        message = (
            f"{names[0]}: without a resolver, nginx closes its clients; txmux asks the system's"
        )
        section.warn(group.line, message)
        return
    if timeout:
        section.warn(timeout, f"has no counterpart; {RESOLVER_TIMEOUT}")
    once = [m.place for m in group.members if m.has_name and not m.resolves and len(names) > 1]
    if once:
        message = f"these are asked for {', '.join(once)}, too, for which nginx asks the system's"
        section.warn(directive, message)
    for word in directive.parameters:
        name, equals, value = word.partition("=")
        if not equals:
            section.add("resolvers", word, directive)
        elif name == "valid" and "{" not in names[0]:
            section.add("resolve", duration(value), directive)
        elif (name, value) not in {("ipv4", "on"), ("ipv6", "on")}:
            section.warn(directive, f"no counterpart of {word}")


def _with_placeholder(value: Value) -> str:
    text = "".join(
        "{sni}" if isinstance(piece, Variable) and piece.name in NAMES_OF_TLS else str(piece)
        for piece in value
    )
    if "$" in text:
        raise InexpressibleError(f"{shown(value)} is put together for each client")
    return text


def _has_name(group: UpstreamGroup) -> bool:
    """Return whether a group is one server whose name is to be looked up."""
    return len(group.members) == 1 and group.members[0].has_name


def _has_header(scope: DirectiveScope) -> bool:
    return any("proxy_protocol" in listen.parameters for listen in scope.all("listen"))

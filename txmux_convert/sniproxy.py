"""A ``sniproxy.conf``, of sniproxy 0.3 to 0.7, as rules."""

import re
from collections.abc import Iterator, Mapping, Sequence

import attrs

from txmux.transport import is_address
from txmux_convert.patterns import name_pattern, python_regex, takes_everything
from txmux_convert.routes import RouteWriter, add_destinations
from txmux_convert.terms import InexpressibleError, Term
from txmux_convert.values import place, split_address
from txmux_convert.writer import ConfigLine, ConvertError, Draft, DraftSection

_TOKEN = re.compile(
    r"[ \t]+|(?P<end>#[^\r\n]*|[;\r\n])|(?P<brace>[{}])"
    r'|(?P<word>(?:\\.|"(?:\\.|[^"\\])*"|[^ \t\r\n;#{}"\\])+)|(?P<wrong>.)',
    re.DOTALL,
)
_QUOTING = re.compile(r'\\(.)|"', re.DOTALL)

# In the order in which sniproxy looks for one that begins with the word that is written.
_TOP = (
    *("username", "groupname", "pidfile", "resolver", "error_log", "access_log"),
    *("listener", "table"),
)
_OF_LISTENER = (
    *("protocol", "reuseport", "ipv6_v6only", "table", "fallback", "source", "access_log"),
    "bad_requests",
)
_ASIDE = {
    "access_log": "access_log in [txmux]",
    "bad_requests": "/api/recent",
    "error_log": "",
    "pidfile": "--pidfile of 'txmux run'",
    "reuseport": "workers in [txmux]",
}
WITHOUT_EFFECT = {
    "bad_requests no": "they are not logged apart",
    "mode default": "the addresses that the system asks for",
    "reuseport no": "one process listens, unless workers says otherwise",
}
"""Lines that have no counterpart and no report, and why they need none; ``no`` stands for ``off`` and ``false``, too."""

_YES, _NO = frozenset({"yes", "true", "on"}), frozenset({"no", "false", "off"})
_NO_LITERAL = "~[^:]*[a-z_-][^.:]*"
_LITERAL = r"~[0-9]+([.][0-9]+){3}|.*:.*"
"""An address in place of a name, to which sniproxy does not connect."""

_NOTES = (
    "sniproxy never ends a connection that is idle; txmux does, after idle_timeout of [backend], 1h by default",
    "sniproxy waits for a request without an end; txmux does for detect_timeout, 5s by default",
    "sniproxy compares the names that clients ask for with case, and txmux without",
)
_ABSOLUTE = "for sniproxy, the name of a request such as 'GET http://a.example/' is in its Host; for txmux it is a.example"
_BARE_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\(?=[^\s\\\"#;{}])")


@attrs.frozen
class _Statement:
    """A line, what stands in its braces, whether a line end or a semicolon follows, and its first word as it is written."""

    line: ConfigLine
    block: Sequence["_Statement"] = ()
    ended: bool = True
    written: str = ""


@attrs.frozen
class _Listener:
    line: ConfigLine
    settings: Mapping[str, ConfigLine]

    @property
    def protocol(self) -> str:
        line = self.settings.get("protocol")
        return "http" if line and "http".startswith(line.value.lower()) else "tls"

    @property
    def option(self) -> str:
        return "host" if self.protocol == "http" else "sni"

    @property
    def host(self) -> str:
        return "::" if self.line.value.isdecimal() else split_address(self.line.value)[0]

    @property
    def port(self) -> str:
        given = self.line.words[-1]
        usual = "80" if self.protocol == "http" else "443"
        return given if given.isdecimal() else split_address(given)[1] or usual


def convert_sniproxy(data: bytes, draft: Draft) -> None:
    tokens = _tokens(data.decode("latin-1"), draft.path)
    _Sniproxy(draft, list(_statements(tokens, draft.path))).convert()


def _tokens(text: str, path: str) -> Iterator[tuple[str, str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        if match["wrong"]:
            raise ConvertError(f"{path}:{line}: a quote or a backslash is left open")
        if match.lastgroup:
            yield match.lastgroup, match[0], line
        line += match[0].count("\n")


def _statements(
    tokens: Iterator[tuple[str, str, int]], path: str, depth: int = 0
) -> Iterator[_Statement]:
    words: list[str] = []
    first, written = 0, ""
    for kind, text, line in tokens:
        if kind == "word":
            first, written = (first, written) if words else (line, text)
            words.append(_QUOTING.sub(lambda found: found[1] or "", text))
            continue
        if (text == "{" and (not words or depth > 4)) or (text == "}" and not depth):
            raise ConvertError(f"{path}:{line}: {text!r} is not expected there")
        block = tuple(_statements(tokens, path, depth + 1)) if text == "{" else ()
        if words:
            yield _Statement(ConfigLine(tuple(words), first), block, text != "}", written)
        words = []
        if text == "}":
            return
    if words:
        yield _Statement(ConfigLine(tuple(words), first))


class _Sniproxy:
    def __init__(self, draft: Draft, top: Sequence[_Statement]) -> None:
        self._draft = draft
        self._routes = RouteWriter(draft)
        self._backends: dict[object, DraftSection] = {}
        self._has_escapes = False
        self._top = [(self._keyword(s.line, _TOP), s) for s in top]
        self._tables = {s.line.value: s.block for name, s in self._top if name == "table"}

    def _keyword(self, line: ConfigLine, names: Sequence[str]) -> str:
        """Return the directive of a line, which may be written in short."""
        keyword = next((name for name in names if name.startswith(line.name)), "")
        if not keyword:
            self._draft.flag(line, "is left out: sniproxy has no such directive")
        elif keyword in _ASIDE and line.value.lower() not in _NO:
            self._draft.set_aside(line, keyword, _ASIDE[keyword])
        return keyword

    def convert(self) -> None:
        blocks = [s for name, s in self._top if name == "listener"]
        if not blocks:
            raise ConvertError(f"{self._draft.path}: there is no listener in it")
        self._draft.notes.extend(_NOTES)
        self._process()
        listeners = [
            _Listener(s.line, {self._keyword(b.line, _OF_LISTENER): b.line for b in s.block})
            for s in blocks
        ]
        of_ipv4 = {each.port for each in listeners if each.host == "0.0.0.0"}  # noqa: S104
        for each in listeners:
            v6_only = each.settings.get("ipv6_v6only")
            is_dual = not (v6_only and v6_only.value.lower() in _YES) and each.port not in of_ipv4
            host = "" if each.host == "::" and is_dual else each.host
            self._listener(each, place(host, each.port))
        self._routes.finish()

    def _process(self) -> None:
        entries: list[tuple[str, ConfigLine]] = []
        for name, statement in self._top:
            if name in {"username", "groupname"}:
                entries.append((name.removesuffix("name"), statement.line))
            for line in [inner.line for inner in statement.block if name == "resolver"]:
                kind = self._keyword(line, ("nameserver", "search", "mode"))
                if kind == "nameserver":
                    entries.append(("resolvers", line))
                elif kind == "search":
                    self._draft.flag(line, "is left out; write whole names in the tables")
                elif kind and line.value.lower() != "default":
                    self._draft.flag(line, "is left out; txmux asks for IPv4 and IPv6 addresses")
        if entries:
            section = self._draft.section("txmux", line=entries[0][1])
            for key, line in entries:
                section.add(key, line.value, line)

    def _listener(self, listener: _Listener, endpoint: str) -> None:
        name = f"{listener.protocol}-{listener.port}"
        section = self._draft.section("listen", name, listener.line)
        self._routes.listeners.append(section)
        section.add("endpoint", endpoint, listener.line)
        section.notes += [_ABSOLUTE] * (listener.protocol == "http")
        fallback = listener.settings.get("fallback")
        otherwise = self._backend(listener, fallback) if fallback else "reject"
        nameless = self._write(listener, section, otherwise)
        section.add("default", nameless if fallback else otherwise, fallback or listener.line)

    def _entries(self, listener: _Listener, section: DraftSection) -> Iterator[ConfigLine]:
        line = listener.settings.get("table")
        table = line.value if line else ""
        if table not in self._tables:
            section.flag(line or listener.line, f"there is no table {table!r}, so sniproxy fails")
        for statement in self._tables.get(table, ()):
            entry = statement.line
            if not statement.ended:
                section.flag(entry, "is left out: sniproxy skips an entry before '}' in a line")
            elif len(entry.words) < 2:
                section.flag(entry, "is left out: it has no address")
            else:
                if _BARE_ESCAPE.search(statement.written) and not self._has_escapes:
                    self._has_escapes = True
                    why = r"sniproxy takes a single backslash away: \. is any character, and \\. a dot, in all entries"
                    section.warn(entry.number, f"{statement.written}: {why}")
                yield entry

    def _write(self, listener: _Listener, section: DraftSection, otherwise: str) -> str:
        """Write the routes, and return where those without a name go: if there is a fallback, sniproxy looks up an empty one."""

        def route(names: str, outcome: str, line: ConfigLine) -> None:
            term = Term(listener.protocol, ((listener.option, names),))
            self._routes.route(section, (term,), outcome, line.number)

        nameless = names = ""
        for entry in self._entries(listener, section):
            try:
                expression = python_regex(entry.name)
            except InexpressibleError as error:
                section.flag(entry, f"is left out: {error}")
                continue
            names = "*" if takes_everything(entry.name) else name_pattern(entry.name)
            with_literals = "," in names or expression.search("192.0.2.1")
            outcome = self._backend(listener, entry, _NO_LITERAL if with_literals else names)
            by_name = split_address(entry.value)[0] == "*"
            if by_name and otherwise != "reject" and with_literals:
                route(_LITERAL, otherwise, entry)
            if expression.search(""):
                nameless = nameless or (otherwise if by_name else outcome)
            if names != "~":
                route(names, outcome, entry)
        if nameless not in {"", otherwise} and names != "*":
            route("*", otherwise, listener.line)
        return nameless or otherwise

    def _backend(self, listener: _Listener, line: ConfigLine, names: str = "") -> str:
        (host, port), more = split_address(line.value), line.words[2:]
        port = port or next(filter(str.isdecimal, more), listener.port)
        server = place(f"{{{listener.option}}}" if host == "*" else host, port)
        source, header = listener.settings.get("source"), {"proxy", "proxy_protocol"} & {*more}
        key = (server, bool(header), source and source.value)
        if key in self._backends:
            section = self._backends[key]
            section.add_each("allow_names", [names] if host == "*" else [], line)
            return section.name
        name = "-".join(re.findall("[A-Za-z0-9-]+", line.name)) if host != "*" else listener.option
        section = self._backends[key] = self._draft.section("backend", name or "all", line)
        section.add("server", server, line)
        if host == "*":
            add_destinations(section, "sniproxy", server, line.number, names)
            section.add("fallback", "reject")
        elif not server.startswith("unix:") and not is_address(host):
            section.add("balance", "first")
        if header:
            section.add("proxy_protocol", "v1", line)
        if source:
            section.add("source", split_address(source.value)[0].lower(), source)
            if split_address(source.value)[1]:
                section.flag(source, "its port is left out; with it, a server has one connection")
        return section.name

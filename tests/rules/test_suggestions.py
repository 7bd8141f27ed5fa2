"""What messages about rules say to write is right, and a test provokes each of these hints."""

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.annotated import problems_of, wrong_rules
from tests.support.installed import names_missing
from txmux.rules.advice import habits, matching
from txmux.rules.problems import Problem
from txmux.rules.reading import parser
from txmux.rules.reading.sections import TABLES

HINT = re.compile(r"\b(?:[wW]rite|did you mean|add|as in)\b")

_PLACEHOLDERS = {
    "CERTIFICATE.pem": "c.pem", "KEY.pem": "k.pem", "NETWORKS": "10.0.0.0/8", "HOST:PORT": "192.0.2.7:22",
    "ADDRESS:PORT": "192.0.2.7:4043", "[V6]": "[2001:db8::7]", "PORT": "4044", "ADDRESS": "192.0.2.7",
    "PROTOCOL": "ssh", "FILE": "/x.pem", "NUMBER": "3", "NAME": "a", "HOST": "192.0.2.7", "TRUST-DOMAIN/PATH": "a/b",
    "TEXT": "x", "URL": "http://127.0.0.1:8500",
}  # fmt: skip
_PLACEHOLDER = re.compile(rf"(?<![A-Z-])(?:{'|'.join(map(re.escape, _PLACEHOLDERS))})(?![A-Z_-])")
_ASIDE = re.compile(r" \((?:there are|possible are|[^()]* takes? ).*$| \([^()]*\)$")
_FOR_EXAMPLE = re.compile(
    r"(?:for UDP )?(?:write|did you mean|add|as in) (?:for example |(?:it|them|one|bytes|bytes per second|a duration|text)"
    r"(?: such)?(?: first)?,? as (?:an? \w+(?: of the matcher)?: )?|it after the server: |one such as )?",
    re.IGNORECASE,
)
_QUOTED = re.compile(
    r"(,? or |,? and |,? with |,? beside |)(?<![\w=])'([^']*[A-Za-z0-9][^']*)'(?: (?:in|to) (?:a )?\[(\w+)[^\]]*\])?"
)
_NO_VALUE = re.compile(
    r" (?:instead|here|there|as a key|for every address|of the two)$| in (?:a )?\[.*"
)
_VALUE = re.compile(r"\[\w+(?: [\w.-]+)?\]|[a-z_]+ = \S+|\S+(?: burst=\S+)?")
_PROSE = frozenset({"one", "it", "that", "this", "them", "plain"})
_UNFINISHED = re.compile(r"=$|DEFAULT|=VALUE$|^\$\{|^(?:openssl|cscli|txmux) ")
_KEYS = frozenset(key for keys in TABLES.values() for key in keys)

Line = tuple[str, str]
"""What to write, and the kind of section for it if it is another one."""


def suggestions(message: str) -> Iterator[Sequence[Line]]:
    """Yield what a message says to write, all that belongs together at once; advice in words is left out."""
    first = HINT.search(message)
    tail = _ASIDE.sub("", message[first.start() :]) if first else ""
    for clause in re.split(r"; |(?<=\?) |: (?=write )", tail):
        if not HINT.match(clause) or clause.startswith("as in ["):
            continue
        text = _FOR_EXAMPLE.sub("", clause.rstrip("?"), count=1)
        together: list[Line] = []
        there = re.search(r"\[(\w+)", message) if clause.endswith(" there") else None
        there = there or re.search(r"in \[(\w+)[^]]*\], (?=write)", message)
        for joint, quoted, section in _QUOTED.findall(text):
            if ("unknown key" not in message and quoted in _KEYS) or _UNFINISHED.search(quoted):
                continue  # only its reader knows the value
            if together and (" = " not in quoted or "or" in joint or not joint):
                yield together
                together = []
            where = section or (together[0][1] if together else there[1] if there else "")
            together.append((_filled(quoted), where))
        if together:
            yield together
            continue
        if _QUOTED.search(text):
            continue
        section = re.search(r" in (?:a )?\[(\w+)", text) or there
        for part in re.split(r",? or | and |, ", _NO_VALUE.sub("", text)):
            bare = re.sub(r"^for example | for (?:every|the) .*", "", part)
            is_value = _VALUE.fullmatch(bare) and bare.strip("\\'\"") and bare not in _PROSE
            if is_value and not _UNFINISHED.search(bare):
                yield [(_filled(bare), section[1] if section else "")]


def _filled(text: str) -> str:
    return _PLACEHOLDER.sub(lambda match: _PLACEHOLDERS[match[0]], text)


def applied(text: str, problem: Problem, together: Sequence[Line]) -> Iterator[str]:
    """Yield the file with what the message says, in each place where its reader may put it."""
    (what, where), *others = together
    at = _At(re.split(r"\r\n|\r|\n", text), problem)
    for changed in at.put(what, where):
        found = changed
        for line, there in others:
            kind = there or at.kind
            if line.partition(" =")[0] not in {one.partition("=")[0].strip() for one in found}:
                found = next(_added(found, kind, line, at.header if kind == at.kind else None))
        yield "\n".join(found)


def _added(lines: list[str], kind: str, line: str, header: int | None) -> Iterator[list[str]]:
    """Yield the lines with one more in a section: at the header, or in any of this kind, or in one more."""
    headers = [n for n, one in enumerate(lines) if re.match(rf"\s*\[{kind}\b", one)]
    if header is not None:
        headers = [header]
    for number in headers:
        yield [*lines[: number + 1], line, *lines[number + 1 :]]
    more = {
        "listen": "endpoint = :4049", "route": "match = stomp", "backend": "server = 192.0.2.8:1",
    }  # fmt: skip
    rest = [more[kind]] if kind in more and not line.startswith(more[kind][:5]) else []
    if kind == "route" and not line.startswith("backend"):
        rest.append("backend = close")
    yield [*lines, f"[{kind} extra]" if kind in more else f"[{kind}]", *rest, line]


@attrs.frozen
class _At:
    """Where a problem is."""

    lines: list[str]
    problem: Problem

    @property
    def number(self) -> int:
        return min(self.problem.line, len(self.lines)) - 1

    @property
    def _own(self) -> str:
        return self.lines[self.number]

    @property
    def header(self) -> int:
        headers = [n for n in range(self.number + 1) if self.lines[n].lstrip().startswith("[")]
        return headers[-1] if headers else -1

    @property
    def kind(self) -> str:
        return re.split(r"[^a-z]", self.problem.section.casefold())[0]

    def put(self, what: str, where: str) -> Iterator[list[str]]:
        keys = TABLES.get(where or self.kind, {})
        told = re.match("unknown key|.*works only over TCP", self.problem.message)
        is_key = told and what in keys
        if re.match(r"[a-z_]+ = ", what):
            return self._line(what, where)
        if re.fullmatch(r"\[[a-z]+( .*)?\]", what):
            return iter([self._with(what)])
        return self._key(what, keys[what].example, where) if is_key else self._value(what)

    def _line(self, what: str, where: str) -> Iterator[list[str]]:
        name = what.partition(" =")[0]
        same = re.compile(rf"\s*{name}\s*=")
        kind = where or self.kind or next(kind for kind in TABLES if name in TABLES[kind])
        every = [self.lines, self._with()]
        every += [[one for one in lines if not same.match(one)] for lines in every]
        if kind == self.kind:
            yield self._with(what)
            for words in self._quoted():
                for stray in (words, rf"{words}\s+\S+"):
                    yield self._with(re.sub(rf"\s*{stray}(?=\s|$)", "", self._own), what)
        for lines in every:
            if kind == self.kind:
                yield from _added(lines, kind, what, self.header)
            if where or kind != self.kind:
                yield from _added(lines, kind, what, None)
        if where and kind != self.kind:
            yield from _added(self._without_section(), kind, what, None)

    def _key(self, what: str, example: str, where: str) -> Iterator[list[str]]:
        for value in (self._own.partition("=")[2], f" {example}"):
            yield self._with(f"{what} ={value}")
            yield [one for one in self._with(f"{what}={value}") if not one.startswith(f"{what} =")]
            if where:
                yield from _added(self._with(), where, f"{what} ={value}", None)

    def _value(self, what: str) -> Iterator[list[str]]:
        own = self._own
        _, equals, value = own.partition("=")
        if own[:1].isspace() or not equals:
            value = own
        yield self._with(own[: len(own) - len(value.lstrip())] + what)
        for words in self._quoted():
            yield self._with(re.sub(words, lambda _: what, own, count=1))
            name = words.partition("=")[0]
            yield self._with(re.sub(rf"{name}(?==)", lambda _: what, own, count=1))
            whole = re.compile(rf"(?<=[= ]){words}(?=$| )")
            if " " not in what:
                yield [whole.sub(lambda _: what, one) for one in self.lines]
        for word in value.split():
            yield self._with(own.replace(word, what, 1))
            yield self._with(own.replace(word, f"{word.partition('=')[0]}={what}", 1))
        yield self._with(f"{own} {what}")
        name, sign, text = map(re.escape, what.partition("="))
        for habit in (rf"{name} *{sign or ' '} *{text}", rf"\b{name}=\S*", rf"\b{name} {text}"):
            yield self._with(re.sub(habit, lambda _: what, own))
        yield self._with(re.sub(r"\s*,\s*", ",", own))
        yield self._with(re.sub(r"(\w+)://", lambda _: f"{what}://", own))

    def _without_section(self) -> list[str]:
        after = (n for n in range(self.header + 1, len(self.lines)) if self.lines[n][:1] == "[")
        return [*self.lines[: self.header], *self.lines[next(after, len(self.lines)) :]]

    def _with(self, *lines: str) -> list[str]:
        return [*self.lines[: self.number], *lines, *self.lines[self.number + 1 :]]

    def _quoted(self) -> list[str]:
        return [re.escape(words) for words in re.findall("'([^']+)'", self.problem.message)]


_CODE = Path(parser.__file__).parents[3]
_HINTING = (
    "txmux/rules/reading", "txmux/rules/advice", "txmux/rules/lint", "txmux/matchers", "txmux/wire", "txmux/detection/regex",
)  # fmt: skip

_SERVING = ("access", "backends", "features/acme/authority.py", "net", "processes", "serving")

_OF_TXMUX = ("acme ", "consul ", "crowdsec_", "geo_", "shared_limits ")

_NEEDS_MORE = (
    "did you mean 'regex'",
    "is not an ACME directory",  # whose terms only the reader can agree to
    "has terms of service",
    "has no value; write for example",  # which may name a listener or a file that these rules lack
    "would get the PROXY header inside TLS", "not a rules file", "other machines can reach this",
    "'-a' is not a host name",  # a name in the place of {sni}
    "in [backend NAME], write answers",  # whose servers are UDP's
)  # fmt: skip
"""Messages whose reader has to change several lines."""

_NEXT = (
    "put the route under a listener with",
    "a TCP endpoint needs 'admin_token' beside it",
    "that the route is for, or 'under = *'",
)
"""What is asked for next, where the value that was written is right: another transport, a token, and listeners."""

_NOT_HERE = {
    "txmux/rules/lint/privileges.py": "about files and users; `tests/rules/lint/test_privileges.py` makes these",
    "txmux/matchers/tftp.py": "'write' is a request of TFTP",
    "txmux/wire/proxyprotocol": "no values of rules",
}
_NEVER_HERE = (
    "it is the path of a file, not the token itself", "kernel needs epoll and splice of Linux",
    "an empty text is not a server", "is empty; write the bytes to look for",
    "is not valid UTF-8; write such bytes", "is not a network; write one a line",
    "' is a folder; write ", "names no network, so no client",
    "names no listener, and none allows routes", "the route may be under",
    "has another owner; write", "its unit has no [listen]; add one",
)  # fmt: skip
"""Hints that depend on other files and on the system, or that are for rules made in Python."""

_IN_CODE = re.compile(r"\b[wW]rite\b(?! to\b)|did you mean|; add\b|as in '")


# The directives, options and values of sslh, nginx, HAProxy, Traefik, Caddy, Envoy, stunnel and sniproxy that are not in tables of hints.
_OTHERS = """
    accept acl alpn alt_statname any_san_matches as backlog balance bandwidth_limit bind_conf ciphers cluster_name compress
    connect_timeout cookie default-server default_server defaults dest downstream dst_port entryPoints error_page errorfile
    external_hosts fastopen filter_chains fullconn global grace handle health_checks hostname http-request httpclose id
    if include interface_name keepalive kernel layer4 lb_endpoints limit_conn_zone limit_rate listen_addr listener_filters
    load_module log-format loglevel map matches max_fails maxsslconn maxsslrate middlewares mode monitor-uri mptcp mss nice
    no-sslv3 npn option params passthrough per_connection_buffer_limit port_redirect prefix_ranges preread_buffer_size proxied
    proxy_buffer_size proxy_download_rate proxy_half_close proxy_responses proxy_ssl_verify pwd rate-limit real_ip_header
    redirect_to reject-with req.len req_ssl_hello_type resolver respond reuse_port route_config rule sendfile server-template
    server_names service setuid sni_regex socket_options spread-checks ssl_certificate ssl_preread ssl_protocols
    stats stick stick-table stream syslog tarpit tcp-request tcp_nopush tcp_proxy tfo throttle timeoutbusy tls_context tls_inspector
    transparent_proxy tunnel_timeout udp_max_connections unless upstream use-server use_backend user var verify when workers xff zone
    $host $port $remote_addr ${PORT} %[src] 403 404 302 443; 5000 5s 10M 10Mbps 1k yes on true off none auto * any all required
    tcp udp ping mysql smtp smtpchk pgsql httpchk https://a.example http://10.0.0.5:80/x a.example 10.0.0.5 10.0.0.0/8 [::1] ::1
    a.example:443 localhost *:443 {host} {port} {host}:{port} {sni}:443 10.0.0.5:$port "a.example" 'x' x; -x --x @x !tls ~x =x
"""
_WORDS = sorted(
    {
        *_OTHERS.split(), *habits.SECTION_ALIASES, *matching.MEANT,
        *matching.SERVER_FIRST, *chain(*habits.HINTS.values()),
    }
)  # fmt: skip
_PLACES = (
    *(f"{kind} {key} = {{}}" for kind, keys in TABLES.items() for key in keys if key not in {"include", "tunnel"}),
    *(f"{kind} {{}} = {{}}" for kind in TABLES),
    *("route match = {} {}", "route match = tls {}={}", "route match = tls {} {}", "route match = {}=a.example"),
    *("backend server = 127.0.0.1:1 {}", "backend server = {}:1", "backend server = {} {}"),
    *("listen endpoint = :4443 {}", "listen starttls = smtp : match = {}", "udp endpoint = {}", "udp match = {}"),
)  # fmt: skip
"""Where a word may be written, : a section, and its keys."""


def _text(line: str) -> str:
    where, _, keys = line.partition(" ")
    sections = {
        "txmux": [], "listen": ["endpoint = :4443"], "route": ["match = ssh", "backend = b"],
        "backend": ["server = 127.0.0.1:1"],
    }  # fmt: skip
    if where == "udp":
        sections |= {
            "listen": ["endpoint = udp:4443"],
            "route": ["match = dns", "backend = b"],
            "backend": ["server = udp:127.0.0.1:1"],
        }
    mistaken = keys.split(" : ")
    kind = where if where != "udp" else "listen" if "endpoint" in keys else "backend"
    for one in mistaken:
        key = one.partition(" =")[0]
        is_elsewhere = key == "match" and kind == "listen"
        where = "txmux" if one.startswith(_OF_TXMUX) else "route" if is_elsewhere else kind
        others = (other for other in sections[where] if not other.startswith(f"{key} ="))
        sections[where] = [one, *others]
    headers = {name: f"[{name} b]" if name != "txmux" else "[txmux]" for name in sections}
    return "".join("\n".join([headers[name], *lines, ""]) for name, lines in sections.items())


def _is_right(
    before: Sequence[Problem], after: Sequence[Problem], problem: Problem, together: Sequence[Line]
) -> bool:
    """Return whether there are fewer errors, and none is about what was written."""
    errors = [[one for one in every if one.severity == "error"] for every in (before, after)]
    messages = {one.message for one in before}
    written = {repr(text.partition(" = ")[2] or text) for text, _ in together}
    for one in errors[1]:
        if any(text in one.message for text in _NEXT):
            errors[0] = [*errors[0], one]
            continue
        is_of_this = one.line == problem.line or one.message not in messages
        if is_of_this and any(text in one.message for text in written):
            return False
    is_gone = not any(errors) and problem.message not in {one.message for one in after}
    return len(errors[1]) < len(errors[0]) or is_gone


def hints_of(*folders: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield each hint of some folders or files of the code, with a pattern for the messages that have it."""
    for folder in folders:
        for file in sorted((_CODE / folder).rglob("*.py")) or _CODE.glob(folder):
            place = str(file.relative_to(_CODE))
            if not place.startswith(tuple(_NOT_HERE)):
                yield from _hints_of(place, ast.parse(file.read_text()))


def _hints_of(place: str, code: ast.Module) -> Iterator[tuple[str, re.Pattern[str]]]:
    skipped: set[ast.AST] = set()
    for node in ast.walk(code):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or (isinstance(node, ast.keyword) and node.arg == "meaning"):
            skipped |= {*ast.walk(node)}
        if node in skipped or not isinstance(node, ast.Constant | ast.JoinedStr):
            continue
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        skipped |= {*ast.walk(node)}
        text = "".join(str(one.value) if isinstance(one, ast.Constant) else "\0" for one in parts)
        if _IN_CODE.search(text) and not any(one in text for one in _NEVER_HERE):
            pattern = re.escape(text).replace("\0", ".*")
            yield f"{place}:{node.lineno}: {text}", re.compile(pattern, re.DOTALL)


@pytest.mark.by_turns(each=True)
class SuggestionTests(SynchronousTestCase):
    def assert_right(self, text: str, before: Sequence[Problem], done: set[object]) -> None:
        cases = [
            (problem, together, case)
            for problem in {*before}
            for together in suggestions(problem.message)
            if (case := (problem.message, *together)) not in done
            and not any(one in problem.message for one in _NEEDS_MORE)
            and not names_missing(problem.message)
        ]
        for problem, together, case in cases:
            if case not in done:
                done.add(case)
                every = map(problems_of, applied(text, problem, together))
                is_right = any(_is_right(before, after, problem, together) for after in every)
                wrong = f"{problem} in\n{text}\nsays {together}, which is wrong"
                self.assertTrue(is_right, wrong)

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.sampled_from(_PLACES), st.sampled_from(_WORDS), st.sampled_from(_WORDS))
    @example("listen starttls = smtp : match = {}", "smtp", "")
    @example("listen default = {} {}", "redirect", "https://a.example")
    @example("backend server = {}", "10.0.0.5:$port", "")
    @example("backend server = {}", "{host}:{port}", "")
    @example("route client_cert = {}", "required", "")
    def test_words_of_other_programs(self, place: str, word: str, other: str) -> None:
        text = _text(place.format(word, other))
        self.assert_right(text, problems_of(text), set())

    def test_each_is_right_and_provoked(self) -> None:
        keys = (
            f"[listen a]\nendpoint = :1\n[{kind if kind == 'txmux' else f'{kind} b'}]\n{key} = 443\n"
            for kind, every in habits.HINTS.items()
            for key in every
        )
        provoked = {text: problems_of(text) for text in (*wrong_rules(), *keys)}
        done = set[object]()
        messages = {problem.message for problems in provoked.values() for problem in problems}
        for text, problems in provoked.items():
            self.assert_right(text, problems, done)
        self.assertGreater(len(done), 500)
        hints = ((hint, form) for hint, form in hints_of(*_HINTING) if not names_missing(hint))
        missing = [hint for hint, form in hints if not any(map(form.search, messages))]
        self.assertEqual(missing, [], "no test provokes these")

    def test_keys_that_a_running_service_names_are_right(self) -> None:
        written = set()
        for hint, _ in hints_of(*(f"txmux/{name}" for name in _SERVING)):
            for key, value in re.findall(r"\b([a-z_]+) = ([^\s',;]+)", hint):
                lines = f"{key} = {'https://ca.example/d' if value == chr(0) else value}\n"
                lines += "acme = letsencrypt\n" if key == "acme_terms" else ""
                self.assertIn(key, TABLES["txmux"], hint)
                text = f"[txmux]\n{lines}[listen a]\nendpoint = :4443\ndefault = 127.0.0.1:1\n"
                self.assertEqual([one for one in problems_of(text) if one.key == key], [], hint)
                written.add(key)
        of_features = () if names_missing("acme") else ("acme", "acme_terms")
        self.assertEqual(written, {"sandbox", *of_features})

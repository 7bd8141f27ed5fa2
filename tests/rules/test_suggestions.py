"""What messages about rules say to write is right, and a test provokes each of these hints."""

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.annotated import problems_of, wrong_rules
from tests.support.installed import names_missing
from tests.support.suggestions import Line, applied, suggestions
from txmux.rules.advice import habits, matching
from txmux.rules.problems import Problem
from txmux.rules.reading import parser
from txmux.rules.reading.sections import TABLES

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
    "would get the PROXY header inside TLS",
    "not a rules file",
    "other machines can reach this",
    "'-a' is not a host name",  # a name in the place of {sni}
)
"""Messages whose reader has to change several lines."""

_NEXT = (
    "put the route under a listener with",
    "a TCP endpoint needs 'admin_token' beside it",
    "that the route is for, or 'under = *'",
)
"""What is asked for next, where the value that was written is right: another transport, a token, and listeners."""

_NOT_HERE = {
    "txmux/rules/lint/privileges.py": "about files and users; `tests/rules/lint/test_privileges.py` makes these",
    "txmux/rules/lint/secrets.py": "about modes of files; `tests/rules/test_named_files.py` makes these",
    "txmux/matchers/tftp.py": "'write' is a request of TFTP",
    "txmux/wire/proxyprotocol": "no values of rules",
}
_NEVER_HERE = (
    "it is the path of a file, not the token itself",
    "kernel needs epoll and splice of Linux",
    "an empty text is not a server",
    "is empty; write the bytes to look for",
    "is not valid UTF-8; write such bytes",
    "is not a network; write one a line",
    "' is a folder; write ",
    "names no network, so no client",
    "names no listener, and none allows routes",
    "the route may be under",
    "has another owner; write",
    "its unit has no [listen]; add one",
)
"""Hints that depend on other files and on the system, or that are for rules made in Python."""

_IN_CODE = re.compile(r"\b[wW]rite\b|did you mean|; add\b|as in '")


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
        sections[where] = [
            one,
            *(other for other in sections[where] if not other.startswith(f"{key} =")),
        ]
    return "".join(
        "\n".join([f"[{name} b]" if name != "txmux" else "[txmux]", *lines, ""])
        for name, lines in sections.items()
    )


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
    return len(errors[1]) < len(errors[0]) or (
        not any(errors) and problem.message not in {one.message for one in after}
    )


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
                self.assertTrue(
                    any(
                        _is_right(before, problems_of(changed), problem, together)
                        for changed in applied(text, problem, together)
                    ),
                    f"{problem} in\n{text}\nsays {together}, which is wrong",
                )

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
        missing = [
            hint
            for hint, form in hints_of(*_HINTING)
            if not any(map(form.search, messages)) and not names_missing(hint)
        ]
        self.assertEqual(missing, [], "no test provokes these")

    def test_keys_that_a_running_service_names_are_right(self) -> None:
        written = set()
        for hint, _ in hints_of(*(f"txmux/{name}" for name in _SERVING)):
            for key, value in re.findall(r"\b([a-z_]+) = ([^\s',;]+)", hint):
                lines = f"{key} = {'https://ca.example/d' if value == chr(0) else value}\n"
                lines += "acme = letsencrypt\n" if key == "acme_terms" else ""
                self.assertIn(key, TABLES["txmux"], hint)
                text = f"[txmux]\n{lines}[listen a]\nendpoint = :4443\ndefault = 127.0.0.1:1\n"
                problems = [one for one in problems_of(text) if one.key == key]
                self.assertEqual(problems, [], hint)
                written.add(key)
        of_features = () if names_missing("acme") else ("acme", "acme_terms")
        self.assertEqual(written, {"sandbox", *of_features})

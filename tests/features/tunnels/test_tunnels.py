import json
from pathlib import Path
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from tests.support.changes import lack_modules
from tests.support.kit import CommandTestCase, make_folder
from txmux.control.attention import measured
from txmux.control.gauges import Gauges
from txmux.features.tunnels import dialogue, read_users
from txmux.features.tunnels.via import Via, proxy
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Rules, Server, Settings
from txmux.rules.problems import InvalidValueError, RulesError
from txmux.rules.reading.parser import load, parse
from txmux.telemetry.reasons import EndReason

_HASH = b"$2y$05$" + b"a" * 53
_LISTEN = "[listen public]\nendpoint = :443\n"
_TUNNEL = "[route t]\nmatch = http method=CONNECT\ntunnel = yes\n"
_NAMED = "[backend b]\nserver = {host}:{port}\nallow_names = *.example.com\n"


def problems(text: str) -> list[str]:
    try:
        rules = parse(_LISTEN + text, "rules.ini")
    except RulesError as error:
        return [problem.message for problem in error.problems]
    assert isinstance(rules, Rules)
    return [f"warning: {problem.message}" for problem in lint(rules)]


class ReadingTests(SynchronousTestCase):
    def test_what_is_wrong_with_users_and_passwords(self) -> None:
        file: Path = make_folder(self) / "users"
        text = f"{_TUNNEL}tunnel_users = {file}\nbackend = 10.0.0.1:22\n"
        self.assertIn("cannot be read", " ".join(problems(text)))
        file.write_text("x\n")
        file.chmod(0o644)
        file.parent.chmod(0o755)
        found = [one.partition("users")[2][:10] for one in problems(text)]
        self.assertEqual(found, ["'; run: ch", ":1: no USE", ": no user "])
        lack_modules(self, "bcrypt")
        problem, *_ = problems(f"{_TUNNEL}tunnel_users = u\nbackend = 10.0.0.1:22\n")
        self.assertIn("needs the package bcrypt, which is not installed; run: ", problem)
        data = b"# all\n\nann:" + _HASH + b"\r\nb\xc3\xb6b:" + _HASH + b"\n"
        self.assertEqual(read_users(data), ({"ann": _HASH, "b\xf6b": _HASH}, []))
        for line in (b"ann:$apr1$x", b"ann", b"ann:" + _HASH.replace(b"05", b"15")):
            users, found = read_users(line)
            self.assertEqual((users, len(found)), ({}, 2))
        self.assertLessEqual({*dialogue._CODES}, {*get_args(EndReason)})
        path = make_folder(self) / "rules.ini"
        text = "[listen l]\nendpoint = :1\nsilent = b\n[backend b]\nserver = 10.0.0.1:1\nvia = http://ops:{}@x:1\n"
        path.write_text(text.format("geheim"))
        error = self.assertRaises(RulesError, load, path)
        wanted = "is the path of a file with the password as its only line, and there is no"
        self.assertIn(wanted, str(error))
        self.assertNotIn("geheim", str(error))
        path.write_text(text.format("/nowhere/x"))
        self.assertIn("cannot read '/nowhere/x'", str(self.assertRaises(RulesError, load, path)))

    def test_everyone_who_logs_in_may_go_anywhere(self) -> None:
        names = _NAMED.replace("*.example.com", "*")
        text = f"max_connections_per_source = 9\n{_TUNNEL}%sbackend = b\n{names}"
        file = make_folder(self) / "users"
        file.write_bytes(b"ann:" + _HASH)
        file.chmod(0o600)
        self.assertIn("this is an open proxy", " ".join(problems(text % "")))
        self.assertEqual(problems(text % f"tunnel_users = {file}\n"), [])

    def test_proxies_are_read_and_logins_need_attention(self) -> None:
        rows: tuple[Any, ...] = (
            ("socks5://127.0.0.1:1080", "socks5://127.0.0.1:1080", "127.0.0.1", 1080),
            ("socks4://[::1]:9/", "socks4://[::1]:9", "::1", 9),
            ("http://ops:/etc/p@w@proxy.test:3128", "http://proxy.test:3128", "proxy.test", 3128,
             "ops", Path("/etc/p@w")),
        )  # fmt: skip
        for text, url, host, port, *login in rows:
            expected = Via(url.partition(":")[0], Server(url, "tcp", host, port), *login)
            self.assertEqual(proxy(text), expected)
            self.assertEqual(cases.backend(f"via = {text}").proxy, expected)
        own = cases.backend("via = socks5://ops:password@proxy:1").proxy
        assert own is not None
        self.assertEqual(own.password, Path("etc/password"))
        reports = [{"logins": [["r", 16, source]]} for source in ("192.0.2.1", "x; reboot")]
        gauges = Gauges.of([{"logins": [["r", 2, "a"]]}, {"logins": [["r", 1, "b"]]}])
        self.assertEqual(gauges.of_features["logins"], {"r": (2, "a")})
        rules = Rules(Path("x.ini"), Settings(), (), ())
        ban = "; keep it out: txmux ban 192.0.2.1 1h"
        for report, advice in zip(reports, (ban, ""), strict=True):
            [item] = measured(Gauges.of([report]), rules, 9.0)
            self.assertEqual((item.what, item.level, item.subject), ("logins", "warning", "r"))
            self.assertEqual(item.text, "route r: 16 logins wait to be checked in a worker")
            self.assertEqual(item.do, f"see who they are: txmux clients{advice}")

    @given(st.text("socks5htp:/@[]{}.1 ", max_size=25))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        self.assertIn("is not a proxy", cases.complaint(proxy, ""))
        try:
            self.assertEqual(proxy(text).server.kind, "tcp")
        except InvalidValueError as error:
            self.assertTrue(error.messages)


class TunnelTests(CommandTestCase):
    text = (
        "[listen a]\nendpoint = :1\n[route t]\nmatch = http method=CONNECT\n  socks5\ntunnel = yes\ntunnel_users = users\nbackend = b\n"
        "[backend b]\nserver = {host}:{port}\nallow_names = *.test\n"
    )

    def test_what_is_asked_for_and_what_is_refused(self) -> None:
        self.write("users", "ann:$2y$05$" + "a" * 53)
        login = r"Proxy-Authorization: Basic YW5uOng=\r\n"
        for text, decided in (
            (rf"CONNECT h.test:22 HTTP/1.1\r\n{login}\r\n",
             "default, to backend b ({host}:{port}): h.test\n"),
            (rf"CONNECT h.test:22 HTTP/1.1\r\n{login}\r\n\r\nx", "\n\ninside the tunnel, listener a: "),
            (rf"CONNECT h.net:22 HTTP/1.1\r\n{login}\r\n",
             "to backend b ({host}:{port}): h.net, name-denied\n"),
            (r"CONNECT h.test:22 HTTP/1.1\r\n", "which opens tunnels; the routes under it decide"),
            (r"CONNECT h.test:22 HTTP/1.1\r\n\r\n", "which opens no tunnel: it has no login"),
        ):  # fmt: skip
            self.assertIn(decided, self.explain("--text", text))
        told = json.loads(self.explain("--json", "--text", r"\x05\x01\x00"))
        trace = told["streams"][0]["listeners"][0]
        self.assertEqual(trace["facts"], {"tunnel": "socks5", "tunnel_error": "it offers no login"})

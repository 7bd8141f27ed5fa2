"""Rules with ``tunnel``: none is open by default."""

import importlib.util
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.features.tunnels.reading import read_users
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Rules
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse

_HASH = b"$2y$05$" + b"a" * 53
_LISTEN = "[listen public]\nendpoint = :443\n"
_TUNNEL = "[route t]\nmatch = http method=CONNECT\ntunnel = yes\n"
_NAMED = "[backend b]\nserver = {host}:{port}\nallow_names = *.example.com\n"
_INNER = "[route i]\nunder = t\nmatch = ssh\nbackend = "


def problems(text: str) -> list[str]:
    try:
        rules = parse(_LISTEN + text, "rules.ini")
    except RulesError as error:
        return [problem.message for problem in error.problems]
    assert isinstance(rules, Rules)
    return [f"warning: {problem.message}" for problem in lint(rules)]


class OpenTests(SynchronousTestCase):
    def test_what_is_refused(self) -> None:
        for text, told in {
            _TUNNEL: "has no destination; add routes with 'under = t', or a 'backend'",
            f"{_TUNNEL}backend = b\n[backend b]\nserver = {{host}}:{{port}}\n": "clients choose where this leads",
            f"{_TUNNEL}backend = b\n[backend b]\nserver = 10.0.0.1:{{port}}\n": "clients choose the port of '10.0.0.1:{port}'",
            f"{_TUNNEL}{_INNER}b\n[backend b]\nserver = {{local}}:{{port}}\n": "clients choose the port of '{local}:{port}'",
            f"default = b\n{_TUNNEL}{_INNER}close\n[backend b]\nserver = {{local}}:{{port}}\n": "clients choose the port",
            f"{_TUNNEL}match = ssh\nbackend = 10.0.0.1:22\n": "'ssh' asks for no tunnel",
            f"{_TUNNEL}match = '\nbackend = 10.0.0.1:22\n": "a quote is not closed",
            f"{_TUNNEL}match = http\nbackend = 10.0.0.1:22\n": "'http' asks for no tunnel",
            f"{_TUNNEL}terminate_tls = a.pem\nbackend = 10.0.0.1:22\n": "this route ends TLS",
            f"{_TUNNEL}tunnel_users = u\nmatch = socks4\nbackend = 10.0.0.1:22\n": "SOCKS 4 has no passwords",
            f"{_TUNNEL}backend = handover:/run/x\n": "their requests cannot be taken back",
            f"{_TUNNEL}{_INNER}handover:/run/x\n": "their requests cannot be taken back",
            f"{_TUNNEL}{_INNER}udp:10.0.0.1:53\n": "its servers use UDP",
            "[route t]\nmatch = socks5\nbackend = close\ntunnel_users = u\n": "does nothing without 'tunnel = yes'",
            f"{_TUNNEL}under = i\n{_INNER}close\ntunnel = yes\n".replace(
                "ssh", "socks5"
            ): "is under itself",
        }.items():
            with self.subTest(text):
                self.assertTrue(any(told in one for one in problems(text)), problems(text))
        named = f"{_TUNNEL}backend = b\n[backend b]\nserver = {{host}}:{{port}}\n"
        self.assertEqual(len(problems(named)), 1, "it needs 'allow_names' alone")

    def test_what_is_allowed(self) -> None:
        namesake = "[route public]\nmatch = ssh\nunder = public\nbackend = 10.0.0.1:22\n"
        open_port = "warning: everyone may come to any port behind [backend b]; add 'from' or 'tunnel_users'"
        for text, told in {
            f"{_TUNNEL}backend = 10.0.0.1:22\n": [],
            f"{_TUNNEL}{_INNER}10.0.0.1:22\n": [],
            f"{_TUNNEL}backend = b\nfrom = 10.0.0.0/8\n{_NAMED}": [],
            f"{_TUNNEL}backend = b\n{_NAMED}": [open_port],
            f"{_TUNNEL}{_INNER}b\n{_NAMED}": [open_port],
            f"{_TUNNEL}{_INNER}b\n{_NAMED}".replace("{port}", "22"): [],
            f"{_TUNNEL}{_INNER}b\nfrom = 10.0.0.0/8\n{_NAMED}": [],
            # A route may have the name of its listener.
            f"{_TUNNEL}under = public\nbackend = b\n{namesake}{_NAMED}": [open_port],
            f"{_TUNNEL}under = public\nbackend = b\n{namesake}from = 10.0.0.0/8\n{_NAMED}": [
                open_port
            ],
        }.items():
            with self.subTest(text):
                self.assertEqual(problems(text), told)

    def test_everyone_who_logs_in_may_go_anywhere(self) -> None:
        names = _NAMED.replace("*.example.com", "*")
        text = f"max_connections_per_source = 9\n{_TUNNEL}%sbackend = b\n{names}"
        file = make_folder(self) / "users"
        file.write_bytes(b"ann:" + _HASH)
        file.chmod(0o600)
        self.assertIn("this is an open proxy", " ".join(problems(text % "")))
        self.assertEqual(problems(text % f"tunnel_users = {file}\n"), [])

    def test_routes_outside_keep_clients_out_of_those_inside(self) -> None:
        names = _NAMED.replace("*.example.com", "*")
        limit, inner = "max_connections_per_source = 9\n", f"{_INNER}b\n{names}"
        asking = "[route o]\nmatch = tls\nterminate_tls = a.pem\ntls_client_ca = ca.pem\n"
        for outer in (f"{_TUNNEL}from = 10.0.0.0/8\n", f"{asking}{_TUNNEL}under = o\n"):
            self.assertEqual(problems(limit + outer + inner), [])
        optional = asking.replace("ca.pem", "ca.pem\ntls_client = optional")
        self.assertEqual(len(problems(f"{limit}{optional}{_TUNNEL}under = o\n{inner}")), 2)
        self.assertEqual(len(problems(limit + f"{asking}{_TUNNEL}under = o, public\n" + inner)), 2)


class UsersTests(SynchronousTestCase):
    def test_what_checks_passwords_is_not_installed(self) -> None:
        self.patch(importlib.util, "find_spec", lambda _: None)
        self.assertIn(
            "needs the package bcrypt, which is not installed; run: ",
            problems(f"{_TUNNEL}tunnel_users = u\nbackend = 10.0.0.1:22\n")[0],
        )

    def test_file(self) -> None:
        data = b"# all\n\nann:" + _HASH + b"\r\nb\xc3\xb6b:" + _HASH + b"\n"
        self.assertEqual(read_users(data), ({"ann": _HASH, "b\xf6b": _HASH}, []))
        for line in (b"ann:$apr1$x", b"ann", b"ann:" + _HASH.replace(b"05", b"15")):
            users, found = read_users(line)
            self.assertEqual((users, len(found)), ({}, 2))

    def test_warnings(self) -> None:
        file: Path = make_folder(self) / "users"
        text = f"{_TUNNEL}tunnel_users = {file}\nbackend = 10.0.0.1:22\n"
        self.assertIn("cannot be read", " ".join(problems(text)))
        file.write_text("x\n")
        file.chmod(0o644)
        file.parent.chmod(0o755)
        self.assertEqual(
            [one.partition("users")[2][:10] for one in problems(dedent(text))],
            ["'; run: ch", ":1: no USE", ": no user "],
        )

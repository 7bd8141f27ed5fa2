"""Tests of what rules ask of the system."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.rules.lint.privileges import Privileges, missing_privileges, own_privileges
from txmux.rules.reading.parser import parse

_USER = Privileges(1000, may=lambda *_: True)


def missing(text: str, privileges: Privileges = _USER) -> list[str]:
    problems = missing_privileges(parse(text, "x.ini"), privileges)
    return [str(problem).removeprefix("x.ini:") for problem in problems]


class LowPortTests(SynchronousTestCase):
    def found(self, endpoint: str, first_port: int = 1024) -> list[str]:
        first = "udp:0" if endpoint.startswith("udp:") else ":0"
        privileges = attrs.evolve(_USER, first_port=first_port)
        return missing(f"[listen a]\nendpoint = {first}\n  {endpoint}\n", privileges)

    def test_low_port(self) -> None:
        for endpoint in (
            ":443",
            "127.0.0.1:443",
            "[::1]:443",
            "tcp:443",
            "tcp6:1023:interface=\\:\\:1",
            "haproxy:tcp:443",
            "udp:443",
            "udp:[::1]:53",
        ):
            message = (
                f"3: warning: [listen a] endpoint: {endpoint!r}: user 1000 may not listen on ports below 1024; "
                "run as root, with the capability CAP_NET_BIND_SERVICE or with a socket of systemd, or choose "
                "another port"
            )
            self.assertEqual(self.found(endpoint), [message])

    def test_other_ports_and_none(self) -> None:
        systemd = "systemd:domain=INET:index=0"
        for endpoint in (":1024", "udp:1024", "127.0.0.1:0", "unix:/run/x", systemd):
            self.assertEqual(self.found(endpoint), [])
        self.assertEqual(self.found(":443", 443), [])


class AccessLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        (self.folder / "there").touch()

    def found(self, name: str, privileges: Privileges) -> list[str]:
        text = f"[txmux]\naccess_log = {name}\n[listen a]\nendpoint = :0\n"
        problems = missing_privileges(parse(text, self.folder / "x.ini"), privileges)
        start = f"{self.folder}/x.ini:2: warning: [txmux] access_log: "
        return [str(problem).removeprefix(start) for problem in problems]

    def test_usable(self) -> None:
        for name in ("there", "new", "-", "off"):
            self.assertEqual(self.found(name, _USER), [])

    def test_unusable(self) -> None:
        folder, user = self.folder, Privileges(1000, may=lambda *_: False)
        advice = "let the user that txmux runs as write"
        for name, message in {
            ".": f"'{folder}' is a folder; write the path of a file",
            "there": f"user 1000 may not write to '{folder}/there'; {advice} to it",
            "a/b": f"there is no folder '{folder}/a'; create it, or correct the path",
            "new": f"user 1000 may not create files in '{folder}'; {advice} there",
        }.items():
            self.assertEqual(self.found(name, user), [message])


class AccountTests(SynchronousTestCase):
    def found(self, settings: str, user: int) -> list[str]:
        known = {"txmux": 900, "900": 900}.get
        privileges = attrs.evolve(_USER, user=user, user_id=known, group_id=known)
        return missing(f"[txmux]\n{settings}\n[listen a]\nendpoint = :0\n", privileges)

    def test_staying_root(self) -> None:
        message = (
            "[txmux] user: txmux runs as root, and stays root; "
            "write 'user = NAME' for the user to switch to once it listens"
        )
        self.assertEqual(self.found("workers = 1", 0), [f"1: warning: {message}"])
        found = missing("[listen a]\nendpoint = :0\n", attrs.evolve(_USER, user=0))
        self.assertEqual(found, [f" warning: {message}"])

    def test_no_warning(self) -> None:
        for settings, user in (
            ("user = txmux", 0),
            ("user = 900\ngroup = txmux", 0),
            ("workers = 1", 1000),
            ("user = txmux", 900),
        ):
            self.assertEqual(self.found(settings, user), [])

    def test_unknown_user_and_group(self) -> None:
        advice = "on this machine; create it, or name another one"
        self.assertEqual(
            self.found("user = nemo\ngroup = nulla", 0),
            [
                f"2: warning: [txmux] user: there is no user 'nemo' {advice}",
                f"3: warning: [txmux] group: there is no group 'nulla' {advice}",
            ],
        )

    def test_only_root_becomes_another(self) -> None:
        told = "user 1000 may not become 'txmux'; run as root, or remove this"
        self.assertEqual(self.found("user = txmux", 1000), [f"2: warning: [txmux] user: {told}"])

    def test_names_are_looked_up_and_numbers_taken(self) -> None:
        own = Privileges(0)
        root = pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name
        self.assertEqual((own.user_id(root[0]), own.group_id(root[1])), (0, 0))
        self.assertEqual((own.user_id("12345"), own.group_id("12345")), (12345, 12345))
        self.assertEqual((own.user_id("no.such"), own.group_id("no.such")), (None, None))


class OwnPrivilegesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.proc = make_folder(self)

    def first_port(self, status: str | None, start: str | None = None) -> int:
        files = {"self/status": status, "sys/net/ipv4/ip_unprivileged_port_start": start}
        for name, text in files.items():
            path = self.proc / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                path.write_text(text)
        own = own_privileges(self.proc)
        self.assertEqual(own.user, os.geteuid())
        return own.first_port

    def test_capability_allows_every_port(self) -> None:
        self.assertEqual(self.first_port("Name:\tx\nCapEff:\t0000000000000400\n", "1024\n"), 0)

    def test_limit_of_the_system_without_the_capability(self) -> None:
        self.assertEqual(self.first_port("CapEff:\t00000000000003ff\n"), 1024)
        self.assertEqual(self.first_port("CapEff:\t00000000000003ff\n", "80\n"), 80)

    def test_nothing_is_refused_where_nothing_is_known(self) -> None:
        self.assertEqual(self.first_port(None), 0)
        self.assertEqual(self.first_port("Name:\tx\n"), 0)


class FolderTests(SynchronousTestCase):
    def test_missing_folders_of_listeners_and_servers(self) -> None:
        folder = make_folder(self)
        found = missing(
            f"[listen a]\nendpoint = unix:{folder}/no/x\n  unix:{folder}/x\n"
            f"[backend b]\nserver = unix:{folder}/x\n  unix:{folder}/no/x\n"
        )
        told = f"there is no folder '{folder}/no'; create it, or correct the path"
        places = ("2: warning: [listen a] endpoint", "6: warning: [backend b] server")
        self.assertEqual(found, [f"{place}: {told}" for place in places])

    def test_missing_folders_of_admin_and_metrics(self) -> None:
        folder = make_folder(self)
        text = "[txmux]\nadmin = unix:no/x\nmetrics = unix:no/y\n[listen a]\nendpoint = :1\n"
        found = missing_privileges(parse(text, folder / "x.ini"), _USER)
        told = f"there is no folder '{folder}/no'; create it, or correct the path"
        self.assertEqual([p.message for p in found], [told, told])
        self.assertEqual([(p.line, p.key) for p in found], [(2, "admin"), (3, "metrics")])

    def test_no_socket_in_its_place(self) -> None:
        folder = make_folder(self)
        (folder / "file").touch()
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(folder / "socket"))
            found = missing(f"[listen a]\nendpoint = unix:{folder}/file\n  unix:{folder}/socket\n")
        told = f"'{folder}/file' is there already, and is not a socket; move it away, or write another path"
        self.assertEqual(found, [f"2: warning: [listen a] endpoint: {told}"])

    def test_token(self) -> None:
        folder = make_folder(self)
        for name, told in {
            "/no/token": f"there is no folder '{folder}/no'; create it, or correct the path",
            "": f"'{folder}' is a folder; write the path of a file",
            "/token": "",
        }.items():
            keys = f"admin = 127.0.0.1:1\nadmin_token = {folder}{name}\n"
            expected = [f"3: warning: [txmux] admin_token: {told}"] if told else []
            self.assertEqual(missing(f"[txmux]\n{keys}[listen a]\nendpoint = :2\n"), expected)


class InterfaceTests(SynchronousTestCase):
    def found(self, name: str, before: str = "") -> list[str]:
        has = attrs.evolve(_USER, has_interface="lan0".__eq__)
        return missing(f"[listen a]\nendpoint = {before}[fe80::1%{name}]:1\n", has)

    def test_missing_interface(self) -> None:
        told = "this machine has no interface 'wan0'; see 'ip link' for the names there are"
        for before in ("", "udp:"):
            found = self.found("wan0", before)
            self.assertEqual(found, [f"2: warning: [listen a] endpoint: {told}"])
            self.assertEqual(self.found("lan0", before), [])

    def test_own_interfaces(self) -> None:
        has = Privileges(1000).has_interface
        is_silent = not Path("/sys/class/net").exists()
        self.assertEqual([has("lo"), has("1"), has("no.such.link")], [True, True, is_silent])

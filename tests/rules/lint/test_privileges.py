import grp
import os
import pwd
import socket
from pathlib import Path
from unittest import SkipTest
from unittest.mock import patch

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from tests.support.installed import names_missing
from txmux.rules.lint.privileges import Privileges, missing_privileges, obstacles, own_privileges
from txmux.rules.reading.parser import parse

_ACME = "acme = letsencrypt\nacme_terms = yes\n"
_USER = Privileges(1000, may=lambda *_: True)


def missing(text: str, privileges: Privileges = _USER) -> list[str]:
    problems = missing_privileges(parse(text, "x.ini"), privileges)
    return [str(problem).removeprefix("x.ini:") for problem in problems]


class PrivilegesTests(SynchronousTestCase):
    def found(self, endpoint: str, first_port: int = 1024) -> list[str]:
        first = "udp:0" if endpoint.startswith("udp:") else ":0"
        privileges = attrs.evolve(_USER, first_port=first_port)
        return missing(f"[listen a]\nendpoint = {first}\n  {endpoint}\n", privileges)

    def test_who_may_listen_where(self) -> None:
        text = "[txmux]\nmetrics = :80\n[listen a]\nendpoint = :0\n"
        metrics = missing(text, attrs.evolve(_USER, first_port=1024))
        told = "2: warning: [txmux] metrics: ':80': user 1000 may not listen"
        self.assertIn(told, "".join(metrics))
        for endpoint in (
            ":443", "127.0.0.1:443", "[::1]:443", "tcp:443", "tcp6:1023:interface=\\:\\:1",
            "haproxy:tcp:443", "udp:443", "udp:[::1]:53",
        ):  # fmt: skip
            message = (
                f"3: warning: [listen a] endpoint: {endpoint!r}: user 1000 may not listen on ports below 1024; "
                "run as root, with the capability CAP_NET_BIND_SERVICE or with a socket of systemd, or choose "
                "another port"
            )
            self.assertEqual(self.found(endpoint), [message])
        systemd = "systemd:domain=INET:index=0"
        for endpoint in (":1024", "udp:1024", "127.0.0.1:0", "unix:/run/x", systemd):
            self.assertEqual(self.found(endpoint), [])
        self.assertEqual(self.found(":443", 443), [])
        text = "[listen a]\nendpoint = :8443\n  unix:/run/x.sock\nmptcp = yes\ndefault = b\n[backend b]\nserver = 127.0.0.1:1\nmptcp = yes\n"
        has = attrs.evolve(_USER, has_mptcp=lambda: True)
        lacks = attrs.evolve(_USER, has_mptcp=lambda: False)
        here = "'unix:/run/x.sock' has no Multipath TCP by 'mptcp'; write ADDRESS:PORT, or SocketProtocol=mptcp in the unit of systemd's socket"
        why = "mptcp: this system has no Multipath TCP, or it is off (sysctl net.mptcp.enabled), so connections are plain TCP"
        endpoint = f"3: warning: [listen a] endpoint: {here}"
        self.assertEqual([one for one in missing(text, has) if "Multipath" in one], [endpoint])
        both = [f"4: warning: [listen a] {why}", f"8: warning: [backend b] {why}"]
        found = [one for one in missing(text, lacks) if "Multipath" in one]
        self.assertEqual(found, [endpoint, *both])

    def of_account(self, settings: str, user: int) -> list[str]:
        known = {"txmux": 900, "900": 900}.get
        privileges = attrs.evolve(_USER, user=user, user_id=known, group_id=known)
        return missing(f"[txmux]\n{settings}\n[listen a]\nendpoint = :0\n", privileges)

    def test_users_and_groups_whose_names_are_looked_up(self) -> None:
        stays = "if you start it as root, it stays root; write 'user = NAME' for the user to switch to once it listens"
        here = "on this machine; create it, or name another one"
        later = "on this machine; create it and reload, or name another one"
        become = "user 1000 may not become 'txmux'; run as root, or remove this"
        for settings, user, *told in (
            ("user = txmux", 0), ("user = 900\ngroup = txmux", 0), ("workers = 1", 1000),
            ("user = txmux", 900), ("workers = 1", 0, f"1: warning: [txmux] user: {stays}"),
            ("user = nemo\ngroup = nulla", 0, f"2: warning: [txmux] user: there is no user 'nemo' {here}",
             f"3: warning: [txmux] group: there is no group 'nulla' {here}"),
            ("admin_users = txmux:all, nemo:read, @nulla:read, 900:all", 1000,
             f"2: warning: [txmux] admin_users: there is no user 'nemo' {later}",
             f"2: warning: [txmux] admin_users: there is no group 'nulla' {later}"),
            ("user = txmux", 1000, f"2: warning: [txmux] user: {become}"),
        ):  # fmt: skip
            self.assertEqual(self.of_account(settings, user), told, settings)
        found = missing("[listen a]\nendpoint = :0\n", attrs.evolve(_USER, user=0))
        self.assertEqual(found, [f" warning: [txmux] user: {stays}"])
        own = Privileges(0)
        root = pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name
        self.assertEqual((own.user_id(root[0]), own.group_id(root[1])), (0, 0))
        self.assertEqual((own.user_id("12345"), own.group_id("12345")), (12345, 12345))
        self.assertEqual((own.user_id("no.such"), own.group_id("no.such")), (None, None))

    def test_first_port(self) -> None:
        """A capability allows every port; without it the limit is the system's. Nothing is refused where nothing is known."""
        proc = make_folder(self)
        for status, start, port in (
            (None, None, 0), ("Name:\tx\n", None, 0), ("CapEff:\t00000000000003ff\n", None, 1024),
            ("CapEff:\t00000000000003ff\n", "80\n", 80),
            ("Name:\tx\nCapEff:\t0000000000000400\n", "1024\n", 0),
        ):  # fmt: skip
            files = {"self/status": status, "sys/net/ipv4/ip_unprivileged_port_start": start}
            for name, text in files.items():
                path = proc / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if text is not None:
                    path.write_text(text)
            own = own_privileges(proc)
            self.assertEqual((own.user, own.first_port), (os.geteuid(), port), (status, start))

    def test_missing_address(self) -> None:
        """Addresses of documentation (RFC 5737, RFC 3849) stand for those that no interface has."""
        here = attrs.evolve(_USER, has_address=lambda _: False)
        listen = "[listen a]\nendpoint = :0\n"
        later = "; for one that it will have, add 'freebind = yes'"
        for endpoint in (
            "192.0.2.1:4443", "[2001:db8::1]:4443", "udp:192.0.2.1:4443", "tcp:4443:interface=192.0.2.1",
        ):  # fmt: skip
            message = f"2: warning: [listen a] endpoint: cannot listen at {endpoint}: no interface of this machine has that address: see 'ip address'{later}"
            text = f"[listen a]\nendpoint = {endpoint}\n"
            self.assertEqual(missing(text, here), [message])
            self.assertEqual(missing(f"{text}freebind = yes\n", here), [])
        for key in ("metrics", "admin"):
            found = missing(f"[txmux]\n{key} = 192.0.2.1:9000\nadmin_token = t\n{listen}", here)
            message = f"2: warning: [txmux] {key}: cannot listen at 192.0.2.1:9000: no interface of this machine has that address: see 'ip address'"
            self.assertEqual(found, [message])

    def of_interface(self, name: str, before: str = "") -> list[str]:
        has = attrs.evolve(_USER, has_interface="lan0".__eq__)
        return missing(f"[listen a]\nendpoint = {before}[fe80::1%{name}]:1\n", has)

    def test_missing_interface(self) -> None:
        told = "this machine has no interface 'wan0'; see 'ip link' for the names there are"
        for before in ("", "udp:"):
            found = self.of_interface("wan0", before)
            at = f"cannot listen at {before}[fe80::1%wan0]:1"
            self.assertEqual(found, [f"2: warning: [listen a] endpoint: {at}: {told}"])
            self.assertEqual(self.of_interface("lan0", before), [])


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        (self.folder / "there").touch()

    def found(self, line: str, privileges: Privileges) -> list[str]:
        acme = "[route a]\nmatch = tls sni=a.example\nterminate_tls = acme\nbackend = 127.0.0.1:1\n"
        text = f"[txmux]\n{line}\n[listen a]\nendpoint = :0\n{acme if 'acme' in line else ''}"
        problems = missing_privileges(parse(text, self.folder / "x.ini"), privileges)
        return [str(problem).removeprefix(f"{self.folder}/x.ini:") for problem in problems]

    def test_files_that_cannot_be_written(self) -> None:
        for name in ("there", "new", "-", "off"):
            self.assertEqual(self.found(f"access_log = {name}", _USER), [])
        folder, user = self.folder, Privileges(1000, may=lambda *_: False)
        advice = "let the user that txmux runs as"
        create = f"user 1000 may not create {{}} in '{folder}'; {advice} write there"
        files, tcp = create.format("files"), "admin = 127.0.0.1:1\nadmin_token = "
        for line, message in {
            "access_log = there": f"2: warning: [txmux] access_log: user 1000 may not write to '{folder}/there'; {advice} write to it",
            "access_log = new": f"2: warning: [txmux] access_log: {files}",
            f"{tcp}new": f"3: warning: [txmux] admin_token: {files}",
            f"admin = unix:{folder}/new": f"2: warning: [txmux] admin: {create.format('sockets')}",
            f"{_ACME}acme_folder = {folder}/a/b": f"4: warning: [txmux] acme_folder: {files}, or name another folder",
        }.items():
            if not names_missing(line):
                self.assertEqual(self.found(line, user), [message])
        with patch.object(Path, "stat", side_effect=PermissionError):
            user = Privileges(1000, may=lambda *_: False)
            (said,) = self.found(f"access_log = {self.folder}/in/log", user)
        self.assertIn("may not create files in", said)

    # Paths that cannot be made keep the service from starting, and are errors; the unit makes some folders.

    def stops(self, text: str) -> list[str]:
        """Return the errors, none of which is a warning, too."""
        rules = parse(text, self.folder / "x.ini")
        found = [str(one).removeprefix(f"{self.folder}/x.ini:") for one in obstacles(rules)]
        warned = " ".join(map(str, missing_privileges(rules, _USER)))
        self.assertFalse([one for one in found if one.partition(": ")[2] in warned])
        return found

    def test_missing_folders_stop_a_start(self) -> None:
        no = f"there is no folder '{self.folder}/no'; create it, or correct the path"
        at = f"cannot listen at unix:{self.folder}/no"
        for text, wrong in (
            ("[listen a]\nendpoint = unix:{0}/no/x\n  unix:{0}/x\n",
             f"2: [listen a] endpoint: {at}/x: "),
            ("[txmux]\nadmin = unix:{0}/x\n  unix:no/y\n", f"3: [txmux] admin: {at}/y: "),
            ("[txmux]\nmetrics = unix:no/y\n", f"2: [txmux] metrics: {at}/y: "),
            ("[txmux]\naccess_log = no/log\n", "2: [txmux] access_log: "),
            ("[txmux]\nadmin = 127.0.0.1:1\nadmin_token = {0}/no/token\n",
             "3: [txmux] admin_token: "),
        ):  # fmt: skip
            listener = "" if "[listen" in text else "[listen a]\nendpoint = :0\n"
            self.assertEqual(self.stops(text.format(self.folder) + listener), [f"{wrong}{no}"])
        text = "[txmux]\nadmin = 127.0.0.1:1\nadmin_token = token\naccess_log = log\nmetrics = unix:m\n"
        self.assertEqual(self.stops(text + "[listen a]\nendpoint = :2\n"), [])
        unused = "[txmux]\nadmin_token = no/token\n[listen a]\nendpoint = :2\n"
        self.assertEqual(self.stops(unused), [])

    def test_folder_in_place_of_a_file_or_file_in_that_of_a_socket(self) -> None:
        """A socket is what an earlier start left."""
        told = f"'{self.folder}' is a folder; write the path of a file"
        for key in ("access_log", "admin = 127.0.0.1:1\nadmin_token"):
            (found,) = self.stops(f"[txmux]\n{key} = {self.folder}\n[listen a]\nendpoint = :2\n")
            self.assertIn(told, found)
        (self.folder / "file").touch()
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.folder / "socket"))
            text = f"[listen a]\nendpoint = unix:{self.folder}/file\n  unix:{self.folder}/socket\n"
            (found,) = self.stops(text)
        told = "/file' exists, and is not a socket; move it away, or write another path"
        self.assertTrue(found.endswith(told), found)

    def test_folder_that_the_unit_makes(self) -> None:
        text = "[txmux]\naccess_log = /var/lib/txmux/log\n[listen a]\nendpoint = :2\n"
        rules = parse(text, "x.ini")
        if Path("/var/lib/txmux").exists():
            raise SkipTest("this machine has the folder")
        self.assertEqual(obstacles(rules), [])
        (found,) = missing_privileges(rules, _USER)
        self.assertIn("create it, unless a unit of systemd does so", str(found))

    def test_server(self) -> None:
        """Its program may make the folder."""
        unix, listen = f"unix:{self.folder}/no/x", "[listen a]\nendpoint = :0\n"
        handover = f"handover:{self.folder}/no/x"
        no = f"there is no folder '{self.folder}/no'; create it, or correct the path"
        for text, place in {
            f"{listen}[backend b]\nserver = {unix}\n": "4: warning: [backend b] server",
            f"{listen}default = {unix}\n": "3: warning: [listen a] default",
            f"{listen}silent = {unix} after=1s\n": "3: warning: [listen a] silent",
            f"{listen}[route r]\nmatch = ssh\nbackend = {unix}\n": "5: warning: [route r] backend",
            f"{listen}[route r]\nmatch = ssh\nbackend = {handover}\n": "5: warning: [route r] backend",
        }.items():
            self.assertEqual((self.stops(text), missing(text)), ([], [f"{place}: {no}"]))

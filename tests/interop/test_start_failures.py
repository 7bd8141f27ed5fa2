"""A service that cannot start says why in one line, and ends with a status that is not 0."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import SkipTest

from tests.interop.children import InteropTestCase, has_ipv6, run
from tests.interop.mux import twist_command

if TYPE_CHECKING:
    from collections.abc import Sequence

_PRIVILEGED_PORT = 81
_FIRST_UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")  # ip(7), Linux


class StartFailureTests(InteropTestCase):
    """Each thing that can be wrong when ``twist txmux`` starts."""

    def failure(self, *sections: str, before: Sequence[str] = (), status: int = 1) -> str:
        self.rules = self.folder / "rules.ini"
        self.rules.write_text("\n".join(sections))
        done = run(*before, *twist_command(), "txmux", "--rules", self.rules)
        self.assertEqual((done.returncode, done.stdout), (status, b""))
        return done.stderr.decode()

    def assert_cannot(
        self, endpoint: str, why: str, *others: str, before: Sequence[str] = ()
    ) -> None:
        lines = [f"[listen {name}]\nendpoint = {text}" for name, text in enumerate(others)]
        said = self.failure(*lines, f"[listen public]\nendpoint = {endpoint}", before=before)
        self.assertEqual(said, f"[listen public] endpoint {endpoint}: cannot listen: {why}\n")

    def assert_taken(self, endpoint: str, *others: str) -> None:
        kind = "u" if endpoint.startswith("udp:") else "t"
        why = f"another program has it (ss -l{kind}np shows which): stop that one or choose another port"
        self.assert_cannot(endpoint, f"Address already in use; {why}", *others)

    def test_port_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            self.assert_taken(f"127.0.0.1:{port}")
            self.assert_taken(f"tcp:{port}:interface=127.0.0.1", "127.0.0.1:0")
            if has_ipv6():
                self.assert_taken(f":{port}", "127.0.0.1:0", ":0")

    def test_port_of_datagrams_taken(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            self.assert_taken(f"udp:127.0.0.1:{other.getsockname()[1]}")

    def test_permission_denied(self) -> None:
        if int(_FIRST_UNPRIVILEGED.read_text()) <= _PRIVILEGED_PORT:
            raise SkipTest("every user may listen on every port here")
        before: tuple[str, ...] = ()
        if os.geteuid() == 0:
            before = ("setpriv", "--bounding-set=-net_bind_service")
            if run(*before, "true").returncode:
                raise SkipTest("root cannot drop capabilities here")
        self.assert_cannot(
            f"127.0.0.1:{_PRIVILEGED_PORT}",
            "Permission denied; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE",
            before=before,
        )

    def test_unknown_address(self) -> None:
        self.assert_cannot(
            "192.0.2.1:0",  # kept for documentation (RFC 5737)
            "Cannot assign requested address; no interface of this machine has that address: see `ip address`; "
            "for one that it will have, 'freebind = yes'",
        )

    def test_no_folder(self) -> None:
        self.assert_cannot(
            f"unix:{self.folder}/no/x.sock",
            "No such file or directory; its folder is not there: create it (systemd does by RuntimeDirectory=), "
            "or correct the path",
        )

    def test_files_of_backends(self) -> None:
        """Files for TLS that cannot be used are errors of the rules, and all are told with their lines."""
        empty = self.folder / "empty.pem"
        empty.touch()
        for settings in ("", "[txmux]\nworkers = 2\n"):
            said = self.failure(
                f"{settings}[listen public]\nendpoint = 127.0.0.1:0\ndefault = a\nsilent = b",
                f"[backend a]\nserver = h:1\ntls = yes\ntls_ca = {empty}",
                f"[backend b]\nserver = h:1\ntls = yes\ntls_client_certificate = {empty}",
                status=os.EX_CONFIG,
            )
            line = 8 + settings.count("\n")
            no = "no certificate in it; name a PEM file with"
            one, two = (f"{self.rules}:{line + more}: [backend" for more in (0, 4))
            self.assertEqual(
                said,
                f"{one} a] tls_ca: '{empty}' has {no} certificates\n"
                f"{two} b] tls_client_certificate: '{empty}': {no} a certificate and its key\n",
            )

    def test_access_log(self) -> None:
        self.assertEqual(
            self.failure(
                f"[txmux]\naccess_log = {self.folder}", "[listen public]\nendpoint = 127.0.0.1:0"
            ),
            f"access_log: {self.folder} cannot be opened for appending: Is a directory\n",
        )

    def test_all_errors_of_rules(self) -> None:
        said = self.failure(
            "[listen public]",
            "endpoint = 127.0.0.1:0",
            "backlgo = 5",
            "[route ssh]",
            "match = shs",
            "backend = nowhere",
            status=os.EX_CONFIG,
        )
        places = [line.partition(": ")[0] for line in said.splitlines()]
        self.assertEqual(places, [f"{self.rules}:{number}" for number in (3, 5, 6)])
        self.assertIn("did you mean 'backlog'?", said)

    def test_no_rules(self) -> None:
        missing = self.folder / "missing.ini"
        done = run(*twist_command(), "txmux", "--rules", missing)
        self.assertEqual(
            (done.returncode, done.stdout, done.stderr.decode()),
            (os.EX_CONFIG, b"", f"{missing}: cannot be read: No such file or directory\n"),
        )

    def test_twistd_fails_too(self) -> None:
        rules = self.folder / "rules.ini"
        rules.write_text("[listen public]\nendpoint = 192.0.2.1:0\n")
        twistd = Path(sys.executable).with_name("twistd")
        done = run(str(twistd), "--nodaemon", "--pidfile=", "txmux", "--rules", rules)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"Cannot assign requested address; no interface", done.stdout)
        self.assertNotIn(b"Traceback", done.stdout + done.stderr)

    def test_neither_rules_nor_demo_or_both(self) -> None:
        for options in ((), ("--rules", "rules.ini", "--demo")):
            done = run(*twist_command(), "txmux", *options)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(b"Error: give either --rules FILE or --demo\n", done.stdout + done.stderr)
            self.assertNotIn(b"Traceback", done.stdout + done.stderr)

"""TLS that ends in txmux: a start that fails, and several processes."""

from __future__ import annotations

import re
import signal
import sys

from tests.interop.children import InteropTestCase, run
from tests.interop.mux import Mux, twist_command
from tests.support.certificates import make_authority


class BadFileTests(InteropTestCase):
    """Files that cannot be used stop the start."""

    def test_start(self) -> None:
        """Each is told with the line that names it, and the process ends with a status that says so."""
        authority = make_authority()
        good, other = authority.issue("a.example"), authority.issue("b.example")
        (self.folder / "mixed.pem").write_bytes(good.pem + other.key_pem())
        (self.folder / "bare.pem").write_bytes(good.pem)
        rules = self.folder / "rules.ini"
        rules.write_text(
            "[listen public]\nendpoint = 127.0.0.1:0\n"
            "[route one]\nmatch = tls sni=a.example\nterminate_tls = mixed.pem\n"
            "[route two]\nmatch = tls\nterminate_tls = bare.pem\n"
        )
        wanted = (
            f"{rules}:5: [route one] terminate_tls: '{self.folder}/mixed.pem': the private key does not belong to the "
            "certificate; name a PEM file with a certificate and its key\n"
            f"{rules}:8: [route two] terminate_tls: '{self.folder}/bare.pem': no private key for its certificate; "
            "name a PEM file with a certificate and its key\n"
        )
        for settings in ("", "[txmux]\nworkers = 2\n"):
            rules.write_text(rules.read_text().partition("[txmux]")[0] + settings)
            done = run(*twist_command(), "txmux", "--rules", rules)
            self.assertEqual(
                (done.returncode, done.stdout, done.stderr.decode()), (78, b"", wanted)
            )
        checked = run(sys.executable, "-m", "txmux", "check", rules)
        self.assertEqual((checked.returncode, checked.stdout.decode()), (1, wanted))


class WorkerTests(InteropTestCase):
    """Several processes that end TLS."""

    def test_changed_certificate_of_all_processes(self) -> None:
        authority = make_authority()
        path = self.folder / "site.pem"
        authority.issue("old.example").write(path, key=True)
        rules = (
            "[listen public]\nendpoint = 127.0.0.1:0\n"
            f"[route secure]\nmatch = tls\nterminate_tls = {path}\n"
        )
        mux = self.own(Mux(self.folder, rules, "workers = 2"))

        def subject() -> str:
            address = f"127.0.0.1:{mux.port}"
            done = run("openssl", "s_client", "-connect", address)
            found = re.search(rb"subject=CN ?= ?(\S+)", done.stdout)
            return found[1].decode() if found else ""

        mux.child.wait_for("workers that serve: 2")
        self.assertEqual(subject(), "old.example")
        authority.issue("new.example").write(path, key=True)
        mux.child.process.send_signal(signal.SIGHUP)
        mux.child.wait_for(r"(?s)been read again.*been read again")
        self.assertEqual({subject() for _ in range(8)}, {"new.example"})
        path.write_bytes(b"")
        mux.child.process.send_signal(signal.SIGHUP)
        mux.child.wait_for(r"reload failed, keeping the previous rules: .*no certificate in it")
        self.assertEqual({subject() for _ in range(8)}, {"new.example"})

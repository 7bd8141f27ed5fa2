"""`client-certificates`: Redis for those whose certificates are right, and nothing for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tests.interop.children import run
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import start_redis
from tests.support.certificates import make_authority

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.certificates import Identity

_NAME = "ops.example.com"


class ClientCertificatesTests(ScenarioTestCase):
    """The example, with an authority of the test; clients are redis-cli."""

    authority: ClassVar[Identity]
    revoked: ClassVar[Identity]
    files: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.files = cls.make_folder("ssl/ops")
        cls.authority = make_authority("Operators")
        cls.revoked = cls.authority.issue("carol", usage=False, units=("ops",))
        server = cls.authority.issue(_NAME)
        server.write(cls.files / "server.pem", key=True)
        cls.authority.write(cls.files / "authority.pem")
        (cls.files / "revoked.pem").write_bytes(cls.authority.revoke(cls.revoked))
        cls.share(start_redis(cls.folder, 6379))
        rules = EXAMPLES / "client-certificates/rules.ini"
        cls.mux = cls.share(Example(rules, {"/etc/ssl": cls.files.parent}))

    def ping(self, shown: Identity | None) -> bytes:
        options = ["--tls", "--sni", _NAME, "--cacert", str(self.files / "authority.pem")]
        if shown is not None:
            own = str(shown.write(self.folder / "client.pem", key=True))
            options += ["--cert", own, "--key", own]
        return run("redis-cli", "-p", "443", *options, "PING").stdout.strip()

    def test_operators(self) -> None:
        """Who is of the unit, or has the name, is let in; the log says who it was."""
        for names, units in (("alice", ("ops",)), ("deploy.example.com", ())):
            shown = self.authority.issue(names, usage=False, units=units)
            self.assertEqual(self.ping(shown), b"PONG")
            line = self.mux.take_one()
            self.assertEqual((line["reason"], line["server"]), ("done", "127.0.0.1:6379"))
            self.assertIn(names, line["facts"]["tls_client"])

    def test_others(self) -> None:
        """Who has none, one of another unit, one of another authority, or one that was revoked, is not; the log says why."""
        stranger = make_authority("Others").issue("alice", usage=False, units=("ops",))
        bob = self.authority.issue("bob", usage=False, units=("sales",))
        for shown, why in (
            (None, "has sent no certificate"),
            (bob, "is not one of those in allow_client"),
            (stranger, "is of an authority that is not in tls_client_ca"),
            (self.revoked, "was revoked"),
        ):
            self.assertNotIn(b"PONG", self.ping(shown))
            line = self.mux.take_one()
            self.assertEqual(line["reason"], "tls-failed")
            self.assertIn(why, line["facts"]["tls_error"])

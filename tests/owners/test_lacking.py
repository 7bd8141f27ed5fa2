"""Of two owners, one has no certificate, or loses it: an upgrade goes well, and the other's clients notice nothing."""

import ssl
from typing import Any

from tests.admin.processes import get
from tests.processes.running import RULES, Pair, WorkersTestCase
from tests.support.kit import PATIENCE, Identity, Service, eventually, make_authority, make_folder

_UNIT = (
    "[route {0}]\nmatch = tls sni={0}.team.example\nunder = public\nterminate_tls = {1}/{0}.pem\n"
    "backend = 127.0.0.1:{2}\n"
)
NAMES = "faulty", "other"


class UpgradeTest(WorkersTestCase):
    authority: Identity

    def issue(self, name: str) -> None:
        self.authority.issue(f"{name}.team.example").write(self.home / f"{name}.pem", key=True)

    def serve(self) -> Service:
        self.admin = self.home / "admin.sock"
        settings = f"include = {self.home}/*.ini\nadmin = unix:{self.admin}"
        return self.upgrading(f"{RULES}routes_from = *\n", settings)

    def connect_to(self, mux: Service, name: str) -> Pair:
        """Have a client served by the server of an owner, with a certificate that is verified."""
        context = ssl.create_default_context(cafile=str(self.home / "ca.pem"))
        client = context.wrap_socket(mux.connect(), server_hostname=f"{name}.team.example")
        self.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.sendall(b"x")
        return client, self.accept_from(self.backends[name], b"x")

    def troubles(self) -> list[dict[str, Any]]:
        items = get(self.admin, "/api/status")["attention"]
        return [item for item in items if item["what"] == "renewal"]

    def test_lost(self) -> None:
        """A new process, and the next one, serve with the certificate that was in use when its file was lost."""
        self.home, self.authority = make_folder(self), make_authority()
        self.home.chmod(0o755)
        self.authority.write(self.home / "ca.pem")
        self.backends = {name: self.backend() for name in NAMES}
        for name, server in self.backends.items():
            text = _UNIT.format(name, self.home, server.getsockname()[1])
            (self.home / f"{name}.ini").write_text(text)
            self.issue(name)
        self.pem = self.home / "faulty.pem"
        mux = self.serve()
        held = self.connect_to(mux, "other")
        for damage in (self.pem.unlink, lambda: self.pem.write_text("damaged")):
            damage()
            mux.replace()
            self.answers(*self.connect_to(mux, "faulty"))
            self.answers(*self.connect_to(mux, "other"))
            eventually(lambda: bool(self.troubles()), "it needs attention")
            [item] = self.troubles()
            found = item["text"]
            self.assertRegex(found, r"\[route faulty\] terminate_tls: .* what is in use is kept")
            self.assertEqual(item["owner"], str(self.home / "faulty.ini"))
        self.answers(*held)

"""`keep-clients-out` with a real CrowdSec, which decides while clients are connected."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from typing import TYPE_CHECKING

from tests.interop.children import PATIENCE, Child, eventually, output_of
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase

if TYPE_CHECKING:
    from pathlib import Path

_PUBLIC, _CLIENT, _LISTED = "192.0.2.1", "203.0.113.7", "198.51.100.7"
_HELLO = b"SSH-2.0-test\r\n"

_CONFIG = """\
common: {{daemonize: false, log_media: stdout, log_level: info}}
config_paths:
  config_dir: {folder}
  data_dir: {folder}
  simulation_path: {folder}/simulation.yaml
  hub_dir: {folder}/hub
  index_path: {folder}/hub/.index.json
  notification_dir: {folder}
  plugin_dir: {folder}
db_config: {{type: sqlite, log_level: info, db_path: {folder}/crowdsec.db}}
api:
  client: {{insecure_skip_verify: false, credentials_path: {folder}/local.yaml}}
  server: {{log_level: info, listen_uri: "127.0.0.1:8080", profiles_path: {folder}/profiles.yaml}}
"""
_PROFILES = """\
name: default
filters: [Alert.Remediation == true]
decisions: [{type: ban, duration: 4h}]
on_success: break
"""


class KeepClientsOutTests(ScenarioTestCase):
    """The example, with CrowdSec's own commands."""

    addresses = (_PUBLIC, _CLIENT, _LISTED)

    def setUp(self) -> None:
        super().setUp()
        self.rules = self.make_folder("rules")
        shutil.copytree(EXAMPLES / "keep-clients-out", self.rules, dirs_exist_ok=True)
        self.config = self.start_crowdsec(self.make_folder("crowdsec"))
        key = self.cscli("bouncers", "add", "txmux", "-o", "raw")
        (self.rules / "crowdsec.key").write_text(key)
        self.server = socket.create_server(("127.0.0.1", 22))
        self.addCleanup(self.server.close)
        self.mux = self.own(Example(self.rules / "rules.ini"))
        self.mux.child.wait_for("sends its bans")

    def start_crowdsec(self, folder: Path) -> Path:
        """Run its Local API, which neither reads logs nor tells anybody else, and give its configuration."""
        config = folder / "config.yaml"
        config.write_text(_CONFIG.format(folder=folder))
        (folder / "simulation.yaml").write_text("simulation: false\n")
        (folder / "profiles.yaml").write_text(_PROFILES)
        (folder / "hub").mkdir()
        (folder / "hub" / ".index.json").write_text("{}")
        output_of("cscli", "-c", config, "machines", "add", "--auto", "-f", folder / "local.yaml")
        self.crowdsec = self.own(Child("crowdsec", "-c", config, "-no-cs"))
        self.crowdsec.wait_for(r"listening on 127\.0\.0\.1:8080")
        return config

    def asked(self) -> int:
        return self.crowdsec.output.count("GET /v1/decisions/stream")

    def cscli(self, *words: str) -> str:
        return output_of("cscli", "-c", self.config, *words).decode()

    def connect(self, client: str = _CLIENT) -> socket.socket:
        connected = socket.create_connection(
            (_PUBLIC, 443), timeout=PATIENCE, source_address=(client, 0)
        )
        self.addCleanup(connected.close)
        connected.sendall(_HELLO)
        return connected

    def is_let_in(self, client: str = _CLIENT) -> bool:
        self.server.settimeout(0.5)
        with self.connect(client):
            try:
                self.server.accept()[0].close()
            except TimeoutError:
                return False
        return True

    def test_decisions(self) -> None:
        """A ban counts within eleven seconds and ends the connection; when it is deleted, the client is let in again."""
        self.assertFalse(self.is_let_in(_LISTED))
        connected = self.connect()
        self.server.settimeout(PATIENCE)
        accepted, _ = self.server.accept()
        self.addCleanup(accepted.close)
        self.assertEqual(accepted.recv(100), _HELLO)
        self.cscli("decisions", "add", "--ip", _CLIENT, "--duration", "1h")
        told = json.loads(self.cscli("decisions", "list", "-o", "json"))
        self.assertEqual(len(told), 1)
        asked = self.asked()
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(connected.recv(1), b"")
        # That is as often as somebody asks every ten seconds who gets its answer at once.
        self.assertLessEqual(self.asked(), asked + 2)
        self.assertFalse(self.is_let_in())
        eventually(
            lambda: (
                ("denied", "ssh") in {(line["reason"], line["route"]) for line in self.mux.lines()}
            ),
            "the connection's end is logged",
        )
        self.cscli("decisions", "delete", "--ip", _CLIENT)
        eventually(self.is_let_in, "the client is let in again")

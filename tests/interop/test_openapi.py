"""The API of a live service, asked by `schemathesis` for all that its description allows, and much that it does not."""

import json
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.browser.service import Watched
from tests.support.kit import PATIENCE, InteropTestCase, run_text

RULES = """
[listen x]
endpoint = 127.0.0.1:0
[route ssh]
match = ssh
backend = b
[route web]
match = http
backend = b
[backend b]
server =
    127.0.0.1:1
    127.0.0.1:2 weight=2
check = tcp interval=1s
"""

CONFIG = """
[parameters]
"path.name" = "x"
"path.backend" = "b"
"path.server" = "127.0.0.1:1"
"path.id" = "{id}"
"""

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
LEFT_OUT = ("/api/stop", "/api/upgrade", "/api/events", "/readyz")
"""What ends the service, or never ends itself; and what says by 503 that no server is up, as it is to."""


@pytest.mark.by_turns
class OpenAPITest(InteropTestCase):
    def test_schemathesis(self) -> None:
        """Whatever is asked, nothing fails inside the service, and each answer is as its description says."""
        watched = self.own(Watched(self.folder, RULES, "workers = 2\nmax_connections = 9"))
        for said in (b"\x00what is this", b"SSH"):
            watched.say("x", said)
        address = f"{watched.address}api"
        token = {"Authorization": f"Bearer {watched.token}"}
        with urlopen(Request(f"{address}/connections", headers=token), timeout=PATIENCE) as answer:
            connections = json.load(answer)
        config = self.folder / "schemathesis.toml"
        config.write_text(CONFIG.format(id=connections[0]["id"] if connections else "5a9d7143-3"))
        done = run_text(
            str(Path(sys.executable).with_name("schemathesis")),
            *("--config-file", str(config), "run", f"{address}/openapi.json"),
            *("-H", f"Authorization: Bearer {watched.token}"),
            *("--checks", CHECKS, "--phases", "coverage,fuzzing"),
            *(part for path in LEFT_OUT for part in ("--exclude-path", path)),
            *("--max-examples", "15", "--seed", "1", "--suppress-health-check", "all"),
            *("--request-timeout", str(PATIENCE)),
            cwd=self.folder,
            seconds=20 * PATIENCE,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("Tested: 25", done.stdout)

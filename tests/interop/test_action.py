"""The action for workflows of other projects, whose steps run here, with a real proxy that loses clients and one that does not."""

import os
import re
import sys
import sysconfig
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.interop.servers import make_certificate, site, start_haproxy, start_nginx
from tests.support.kit import Child, InteropTestCase, free_port, leave_unmeasured

_CHECKOUT = Path(__file__).parents[2]
_load = import_module("yaml").safe_load
_ACTION = _load((_CHECKOUT / "action.yml").read_text())
_FRONTEND = """
frontend {name}
    mode tcp
    bind 127.0.0.1:{port}
{wait}
    use_backend www if {{ req.ssl_sni www.example.com }}
    default_backend other
"""
_BACKEND = """
backend {name}
    mode tcp
    server only 127.0.0.1:{port}
"""


@pytest.mark.by_turns
class ActionTests(InteropTestCase):
    """HAProxy has two ports before two servers: one waits for the whole hello, as docs say how, and one does not."""

    def start(self, step: Any, given: dict[str, str]) -> Child:
        """Start a step as a runner does, with these inputs and the defaults of others."""
        inputs = {name: one.get("default", "") for name, one in _ACTION["inputs"].items()} | given
        fill = partial(re.sub, r"\$\{\{ inputs\.(\w+) \}\}", lambda found: inputs[found[1]])
        own = {name: fill(value) for name, value in step["env"].items()}
        words = [f"{name}={value}" for name, value in {**own, **self.runner}.items()]
        shell = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"])
        return self.own(Child("env", *words, *shell))

    def test_steps(self) -> None:
        """It installs txmux, fails by its exit status, and says in the summary of the run why."""
        leave_unmeasured(self)
        sites = parts = ""
        for name in ("www", "other"):
            port, certificate = free_port(), make_certificate(self.folder, f"{name}.example.com")
            sites += site(f"127.0.0.1:{port}", name, certificate=certificate)
            parts += _BACKEND.format(name=name, port=port)
        page = (_CHECKOUT / "docs/how-to/test-a-port.md").read_text()
        (wait,) = re.findall(r"^tcp-request inspect-delay .*\n.*\n", page, re.MULTILINE)
        hasty, patient = free_port(), free_port()
        for port, lines in ((hasty, ""), (patient, wait)):
            parts += _FRONTEND.format(name=f"port{port}", port=port, wait=lines)
        self.own(start_nginx(self.make_folder("nginx"), sites))
        self.own(start_haproxy(self.folder, parts))
        summary = self.folder / "summary.md"
        # pip has what it needs from the tests' environment, and asks nobody for more.
        offline = {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
        self.runner = {
            **offline,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": sysconfig.get_path("purelib"),
            "RUNNER_TEMP": str(self.folder),
            "GITHUB_ACTION_PATH": str(_CHECKOUT),
            "GITHUB_STEP_SUMMARY": str(summary),
        }
        install, test = _ACTION["runs"]["steps"]
        installing = self.start(install, {})
        self.assertEqual(installing.wait(), 0, installing.output)
        started = []
        results = {hasty: (1, "The answer depends on packets")}
        results[patient] = 0, "The answer does not depend on packets"
        results[free_port()] = 3, "There is no answer"
        for port, (status, result) in results.items():
            address = f"127.0.0.1:{port}"
            given = {"address": address, "sni": "www.example.com\n", "options": "--timeout 3"}
            started.append((self.start(test, given), address, status, result))
        for process, address, status, result in started:
            self.assertEqual(process.wait(), status, process.output)
            self.assertEqual("::error " in process.output, status != 0)
            self.assertIn(f"### `{address}`\n\n{result}", summary.read_text())
        self.assertIn("X25519MLKEM768 (1.8 KiB)", summary.read_text())

    def test_shown_workflow(self) -> None:
        page = (_CHECKOUT / "docs/questions/post-quantum-hello.md").read_text()
        (shown,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        (step,) = _load(shown)["jobs"]["post-quantum"]["steps"]
        self.assertLessEqual(step["with"].keys(), _ACTION["inputs"].keys())
        needed = {name for name, one in _ACTION["inputs"].items() if one.get("required")}
        self.assertLessEqual(needed, step["with"].keys())

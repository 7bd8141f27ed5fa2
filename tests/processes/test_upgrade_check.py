"""What an upgrade would do, asked before it is made: ``txmux upgrade --check``."""

import resource
import time
from typing import Any

import pytest

from tests.admin.processes import answer_to, send
from tests.processes.running import customize, set_limits
from tests.support.kit import PATIENCE, RULES, Service, WorkersTestCase, eventually, free_port
from tests.support.proc import family_of
from txmux.net.sockets.plainsocket import reset_on_close
from txmux.tcp.moving import StayReason

pytestmark = pytest.mark.by_turns(each=True)

_HALF_INSTALLED = """
import os, sys
if "txmux" in sys.orig_argv and os.path.exists({gate!r}):
    sys.modules["txmux.processes.service"] = None
"""


class UpgradeCheckTest(WorkersTestCase):
    def begin(self, rules: str, settings: str = "workers = 2") -> Service:
        self.mux = self.upgrading(rules, settings, admin=True)
        return self.mux

    def check(self) -> Any:
        return self.mux.api("upgrade/check", {})

    def held(self, count: int) -> None:
        def is_so() -> bool:
            backends = self.mux.api("backends")
            return bool(sum(backend["held"] for backend in backends) == count)

        eventually(is_so, f"{count} clients wait for a server")

    def assert_near(self, until: float, seconds: float) -> None:
        self.assertLess(abs(until - time.time() - seconds), PATIENCE)

    def secure(self, mux: Service, said: bytes) -> None:
        client = self.trusted.wrap_socket(self.client(mux), server_hostname="a.example")
        reset_on_close(client)  # after a FIN, a held one would wait on
        self.addCleanup(client.close)
        client.sendall(said)

    def all_kinds(self) -> Service:
        """Start a service with connections of all kinds: four that move, and eight that stay, for three reasons."""
        pem, self.trusted = self.make_certificate()
        listening, limited = self.backend(), self.backend()
        mux = self.begin(
            f"{RULES}[route secure]\nmatch = tls\nterminate_tls = {pem}\n"
            f"[route waits]\nmatch = ssh\nbackend = away\n"
            f"[route waits-inside]\nmatch = ssh\nunder = secure\nbackend = away\n"
            f"[route slow]\nmatch = redis\nbackend = slow\n"
            f"[route inside]\nmatch = any\nunder = secure\nbackend = here\n"
            f"[route all]\nmatch = any\nbackend = here\n"
            f"[backend here]\nserver = 127.0.0.1:{listening.getsockname()[1]}\n"
            f"[backend slow]\nserver = 127.0.0.1:{limited.getsockname()[1]}\nupload_rate = 1MiB/s\n"
            f"[backend away]\nserver = 127.0.0.1:{free_port()} down\nhold = 2h\n",
            "workers = 2\ndrain_timeout = 10m",
        )
        for _ in range(2):
            self.client(mux).sendall(b"plain\n")
            self.accept_from(listening, b"plain\n")
        for _ in range(3):
            self.secure(mux, b"plain\n")
            self.accept_from(listening, b"plain\n")
        client = self.client(mux)
        client.sendall(b"*1\r\n$4\r\nPING\r\n")
        self.accept_from(limited, b"*1\r\n$4\r\nPING\r\n")
        client = self.client(mux)
        reset_on_close(client)
        client.sendall(b"SSH-2.0-x\r\n")
        for _ in range(2):
            self.secure(mux, b"SSH-2.0-x\r\n")
        self.held(3)
        for _ in range(3):
            self.is_accepted(mux.pid, self.client(mux))
        return mux

    def test_what_stays(self) -> None:
        """The check has the numbers and times of the upgrade that follows, and changes nothing."""
        mux = self.all_kinds()
        stays: dict[StayReason, int]
        stays = {"undecided": 3, "TLS ends here": 3, "waiting for a server": 2}
        family, counts = family_of(mux.pid), self.mux.api("status")["connections"]
        text = (
            r"; staying in old workers until ..:..:.. UTC: 3 \S.*, 3 \S.*"
            r"; staying in old workers until ..:..:.. UTC: 2 waiting for a server$"
        )
        for _ in range(2):
            found = self.check()
            self.assert_near(found.pop("until"), 600 + 3600)
            changes = found.pop("changes")
            self.assertRegex(changes, f"^connections that an upgrade would hand over: 4{text}")
            wanted = {"ready": True, "refusals": [], "moves": 4, "stays": stays, "incomplete": []}
            self.assertEqual(found, {"ok": True, **wanted})
        self.assertNotRegex(mux.child.output, " (warn|error|critical) .*(upgrade|supervisor)")
        eventually(lambda: family_of(mux.pid) == family, "the new processes have ended")
        self.assertEqual(self.mux.api("status")["connections"], counts)
        items = {item["what"] for item in self.mux.api("status")["attention"]}
        self.assertFalse(items & {"upgrade", "workers"})
        done = self.mux.api("upgrade", {})
        mux.switched()
        self.assertEqual((done["moved"], done["stays"]), (4, stays))
        self.assert_near(done["until"], 600 + 3600)
        self.assertRegex(done["changes"], f"handed over: 4, in \\d+ ms{text}")

    def test_code_that_cannot_be_imported(self) -> None:
        """The installed code is tried in a process of its own; this one continues to serve."""
        listening, gate = self.backend(), self.folder / "gate"
        customize(self, _HALF_INSTALLED.format(gate=str(gate)))
        mux = self.begin(self.relaying(listening))
        gate.touch()
        found = self.check()
        self.assertFalse(found["ready"])
        self.assertEqual(found["refusals"][0], "the new process exited with status 1")
        self.assertIn("ModuleNotFoundError: ", found["refusals"][-1])
        self.over(*self.relayed(mux, listening))
        gate.unlink()
        self.assertTrue(self.check()["ready"])
        mux.file.write_text(mux.file.read_text().replace("match", "mtach"))
        status, line, *_ = self.check()["refusals"]
        self.assertEqual(status, "the new process exited with status 78")
        self.assertRegex(line, r"rules.ini:\d+: .* mtach: .*did you mean 'match'")

    def test_what_takes_no_new_process(self) -> None:
        """Each reason is listed, and no process is started."""
        prefix = "processes.upgrade.upgrades.lacking"
        lacks = {"room": "lambda _: 'no memory'", "descriptors": "lambda _: 'no descriptors'"}
        set_limits(self, {f"{prefix}_{name}": value for name, value in lacks.items()})
        mux = self.begin(
            RULES.replace("127.0.0.1:0", "haproxy:tcp:0:interface=127.0.0.1"), "workers = 1"
        )
        *lacking, other = self.check()["refusals"]
        self.assertEqual(lacking, ["no memory", "no descriptors"])
        self.assertIn("cannot be handed to another process", other)
        mux.refuse("no memory")

    def test_descriptors(self) -> None:
        """Few descriptors refuse an upgrade before anything is started, instead of leaving connections behind."""
        listening = self.backend()
        mux = self.begin(self.relaying(listening), "workers = 2\nrelay = portable")
        pair = self.relayed(mux, listening)
        before = resource.prlimit(mux.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(mux.pid, resource.RLIMIT_NOFILE, (mux.descriptors() + 15, before[1]))
        mux.refuse("an upgrade needs 20 more descriptors in this process, which has .*LimitNOFILE=")
        resource.prlimit(mux.pid, resource.RLIMIT_NOFILE, before)
        mux.upgrade()
        found = self.check()
        self.assertEqual(found["changes"], "connections that an upgrade would hand over: 1")
        self.assertIsNone(found["until"])
        self.all_end([pair])

    def test_meanwhile(self) -> None:
        """An upgrade that is asked for during a check comes after it; so does a reload."""
        ready, gate = self.late_upgrade("start", after=True)
        mux = self.begin(RULES)
        first = send(self.mux.admin, "POST", "/api/upgrade/check")
        eventually(ready.exists, "a new process is ready")
        second = send(self.mux.admin, "POST", "/api/upgrade/check")
        self.mux.api("status")  # which comes after it
        mux.ask()
        gate.touch()
        for asking in (first, second):
            status, found = answer_to(asking)
            self.assertEqual((status, found["ready"]), (200, True))
        mux.switched()
        self.assertNotIn("upgrade failed", mux.child.output)

import json
import os
import queue
import signal
import subprocess
import sys
import threading

from tests.admin.processes import post
from tests.support.kit import PATIENCE, CommandTestCase, WorkersTestCase, eventually

_END = {
    "id": "a-1", "client": "192.0.2.1:5", "listener": "x", "server": "10.0.0.5:1",
    "reason": "connect-refused", "bytes_in": 1200, "bytes_out": 0, "ended": 1e9,
}  # fmt: skip
_ENDS = [{**_END, "id": "a-2", "route": None, "server": None}, {**_END, "route": "web"}]
_PROGRAM = (sys.executable, "-m", "txmux", "events")


class RecentTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.answering()
        self.server.others["/api/recent"] = _ENDS

    def test_oldest_first_a_line_each(self) -> None:
        code, out, err = self.ask("events")
        first, second = out.splitlines()
        self.assertEqual((code, err), (0, ""))
        end = "192.0.2.1:5 on x, route {}: connect-refused, 1.2 k in, 0 out".format
        shown = rf"^2001-09-0\d \d\d:\d\d:40  end      a-1 {end('web to 10.0.0.5:1')}$"
        self.assertRegex(first, shown)
        self.assertTrue(second.endswith(f"a-2 {end('-')}"), second)
        # Those of a route.
        for route, identity in (("web", "a-1"), ("-", "a-2"), ("no", None)):
            code, out, _ = self.ask("events", "--json", "--route", route)
            found = [json.loads(line)["id"] for line in out.splitlines()]
            self.assertEqual((code, found), (0, [identity] if identity else []))
        none = "no recent connection of route no ended otherwise than 'done'\n"
        self.assertEqual(self.ask("events", "--route", "no"), (0, none, ""))
        self.server.others["/api/recent"] = []
        self.assertEqual(self.ask("events"), (0, none.replace(" of route no", ""), ""))
        self.assertEqual(self.ask("events", "--json"), (0, "", ""))
        self.server.others["/api/recent"] = (403, {"error": "no"})
        self.assertEqual(self.ask("events"), (1, "", "no\n"))
        self.server.others["/api/events"] = (403, {"error": "no"})
        self.assertEqual(self.ask("events", "--follow"), (1, "", "no\n"))

    def test_closed_pipe_also_while_there_are_no_events(self) -> None:
        self.server.others["/api/events"] = b": still here\n\n"
        reading, writing = os.pipe()
        os.close(reading)
        words = (*_PROGRAM, "--follow", "--admin", f"unix:{self.server.at}")
        with open(writing, "wb") as out:  # noqa: PTH123 - a descriptor
            ended = subprocess.run(
                words, stdout=out, stderr=subprocess.PIPE, timeout=PATIENCE, check=False
            )
        self.assertEqual((ended.returncode, ended.stderr), (141, b""))


class FollowTests(WorkersTestCase):
    def follow(self, *words: str) -> "queue.Queue[str]":
        self.mux = self.upgrading(settings="drain_timeout = 1s", admin=True)
        self.admin = self.mux.admin
        command = (*_PROGRAM, "--follow", "--admin", f"unix:{self.admin}", *words)
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.child = child
        lines: queue.Queue[str] = queue.Queue()

        def read() -> None:
            for line in child.stdout or ():
                lines.put(line)

        self.reader = reader = threading.Thread(target=read)
        reader.start()

        def end() -> None:
            child.kill()
            child.wait()
            reader.join()
            assert child.stdout is not None
            child.stdout.close()

        self.addCleanup(end)
        return lines

    def test_through_an_upgrade_until_the_service_stops(self) -> None:
        lines = self.follow("--json")

        def is_followed() -> bool:
            post(self.admin, "/api/reload")
            return not lines.empty()

        eventually(is_followed, "it is subscribed")
        event = json.loads(lines.get())
        found = event["event"], event.get("changes")
        self.assertEqual(found, ("reload", "nothing changed"), event)
        post(self.admin, "/api/upgrade")
        self.mux.switched()
        while not lines.empty():
            lines.get()
        eventually(is_followed, "it follows the new process")
        self.mux.stop()
        self.assertEqual(self.child.wait(PATIENCE), 0)
        self.reader.join()
        *_, last = lines.queue
        self.assertEqual(json.loads(last)["event"], "stop")

    def test_interrupt(self) -> None:
        lines = self.follow()
        eventually(lambda: post(self.admin, "/api/reload") and not lines.empty(), "it follows")
        self.child.send_signal(signal.SIGINT)
        self.assertEqual(self.child.wait(PATIENCE), 130)

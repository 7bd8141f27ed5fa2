"""What tests leave behind is found, and told by its name."""

import socket
import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.support.leaks import added_since, look
from tests.support.nested import run_tests

_CONFTEST = """
from tests.support.leaks import Guard

def pytest_configure(config):
    config.pluginmanager.register(Guard(patience=0.01))
"""

_TESTS = """
import os, socket, subprocess, tempfile, threading
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, capturedLogs
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

kept = []

class Leaky(SynchronousTestCase):
    def test_child(self):
        child = subprocess.Popen(["sleep", "60"])
        self.addClassCleanup(child.wait)
        self.addClassCleanup(child.kill)

    def test_delayed_call(self):
        self.addClassCleanup(reactor.callLater(100, print).cancel)

    def test_descriptor(self):
        kept.append(os.open("/dev/zero", os.O_RDONLY))

    def test_failing(self):
        kept.append(os.open("/dev/full", os.O_RDONLY))
        self.fail("for a reason of its own")

    def test_file(self):
        tempfile.mkdtemp(prefix="forgotten-")

    def test_port(self):
        kept.append(reactor.listenTCP(0, Factory()))
        self.addClassCleanup(kept[-1].stopReading)

    def test_socket(self):
        kept.append(socket.create_server(("127.0.0.1", 0)))

    def test_thread(self):
        over = threading.Event()
        threading.Thread(target=over.wait, name="forgotten").start()
        self.addClassCleanup(over.set)

    def test_well(self):
        pass

class LeakyClass(SynchronousTestCase):
    @classmethod
    def setUpClass(cls):
        kept.append(os.open("/dev/null", os.O_RDONLY))

    def test_nothing(self):
        pass

class Tidy(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = socket.create_server(("127.0.0.1", 0))
        cls.addClassCleanup(cls.shared.close)

    def test_attribute(self):
        self.file = open("/dev/zero")

    def test_circle(self):
        circle = [open("/dev/zero")]
        circle.append(circle)

    def test_skipped(self):
        self.file = open("/dev/zero")
        raise SkipTest("because")

    async def test_threads_of_the_reactor(self):
        await deferToThread(print)

class TidyAfterOneThatFails(SynchronousTestCase):
    def test_first(self):
        with capturedLogs():
            self.fail("while it looks at what is logged")

    def test_second(self):
        Logger().info("{file}", file=open("/dev/zero"))
"""


class GuardTests(SynchronousTestCase):
    def test_timers_about_to_end_are_waited_for(self) -> None:
        before = look()
        threading.Timer(0.05, print).start()
        self.assertEqual(added_since(before, patience=60), {})

    def test_circle_of_an_ended_thread_is_waited_for(self) -> None:
        def run() -> None:
            over.wait()
            circle: list[object] = [socket.socket()]
            circle.append(circle)

        over = threading.Event()
        before = look()
        threading.Thread(target=run).start()
        threading.Timer(0.5, over.set).start()
        self.assertEqual(added_since(before, patience=60), {})

    def test_each_kind(self) -> None:
        """Each leak is an error of the test or the class that it belongs to; what has failed anyway is not told of twice."""
        _, said = run_tests(self, _CONFTEST, _TESTS)
        self.assertIn("2 failed, 13 passed, 1 skipped, 8 errors", said)
        self.assertEqual(said.count("has left behind:"), 8)
        self.assertEqual(said.count("this test has left behind:"), 7)
        for pattern in (
            r"child process: \d+, sleep", r"delayed call: <DelayedCall ",
            r"descriptor: \d+, /dev/zero\n", r"temporary file: forgotten-",
            r"reader or writer: <.*Port",
            r"descriptor: \d+, socket:\[\d+\], <socket.* laddr=\('127.0.0.1', \d+\)",
            r"thread: <Thread\(forgotten", r"LeakyClass has left behind:\n.*/dev/null",
        ):  # fmt: skip
            self.assertRegex(said, pattern)
        self.assertNotIn("/dev/full,", said)

"""The time of day is set while bans and holds last; nothing else that lasts goes by it, says `tests/test_wall_clock.py`."""

import contextlib
import os
import socket
import struct
import time

import pytest

from tests.interop.children import InteropTestCase, eventually
from tests.support.changes import change_environment
from tests.support.echo import EchoServer
from tests.support.services import Service

pytestmark = pytest.mark.by_turns

_SHIM = """
import mmap, os, struct, time

real = time.time
with open(os.environ["CLOCK_STEP"], "rb") as file:
    step = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
time.time = lambda: real() + struct.unpack("d", step)[0]
"""
"""What every Python runs first: the time of day is as far off as a file says.

It is in memory that forked processes share: workers may open no file.
"""
_RULES = """
[listen public]
endpoint = 127.0.0.1:0
detect_timeout = 1h
[route all]
under = *
match = any
backend = echo
[backend echo]
server = 127.0.0.1:{}
"""


class ClockTests(InteropTestCase):
    def setUp(self) -> None:
        shims = self.make_folder()
        (shims / "sitecustomize.py").write_text(_SHIM)
        self.clock = shims / "step"
        self.clock.write_bytes(bytes(8))
        path = os.pathsep.join([str(shims), os.environ.get("PYTHONPATH", "")])
        change_environment(self, PYTHONPATH=path, CLOCK_STEP=str(self.clock))
        self.rules = _RULES.format(self.own(EchoServer()).port)

    def step(self, seconds: float) -> None:
        with self.clock.open("r+b") as file:
            file.write(struct.pack("d", seconds))

    def client(self) -> socket.socket:
        client = self.mux.connect()
        self.addCleanup(client.close)
        return client

    def is_banned(self) -> bool:
        with contextlib.suppress(ConnectionError):
            client = self.client()
            client.sendall(b"x")
            return client.recv(1) != b"x"
        return True

    def assert_left(self, until: float) -> None:
        left = until - (time.time() + 3600)
        self.assertTrue(300 < left <= 601, left)

    def test_bans_and_holds(self) -> None:
        """An hour on, those of ten minutes are there, also after an upgrade, and end by the new time; those of seconds end, two hours back."""
        self.mux = mux = self.own(Service(self.folder, self.rules, "workers = 2", admin=True))
        mux.api("bans", {"network": "127.0.0.1", "seconds": 600})
        mux.api("backends/echo/hold", {"seconds": 600})
        self.step(3600)
        for upgrades in (False, True):
            if upgrades:
                mux.upgrade()
            mux.api("bans", {"network": "192.0.2.7", "seconds": 1})
            eventually(lambda: len(mux.api("bans")) == 1, "it looks at ends")
            self.assertTrue(self.is_banned())
            self.assert_left(mux.api("bans")[0]["until"])
            self.assert_left(mux.api("backends")[0]["hold"]["until"])
        mux.api("bans/remove", {"network": "127.0.0.1"})
        waiting = self.client()
        waiting.sendall(b"x")
        eventually(lambda: mux.api("backends")[0]["held"] == 1, "it waits")
        mux.api("backends/echo/hold", {"seconds": 3})
        self.step(-3600)
        self.assertEqual(waiting.recv(1), b"x")
        self.assertIsNone(mux.api("backends")[0]["hold"])
        mux.api("bans", {"network": "127.0.0.1", "seconds": 3})
        self.step(-7200)
        eventually(lambda: not self.is_banned(), "the ban ends")
        self.assertEqual(mux.api("bans"), [])

"""What a test needs, by one name each: `tests/README.md` says which of it is for what."""

from tests.interop.children import (
    PATIENCE,
    Child,
    InteropTestCase,
    eventually,
    leave_unmeasured,
    output_of,
    run,
)
from tests.processes.running import RULES, WorkersTestCase, customize, set_limits
from tests.support.certificates import make_authority
from tests.support.each import for_each
from tests.support.folders import make_folder
from tests.support.mux import MuxTestCase, VirtualTime
from tests.support.peers import Peer, connect, listen, pair, reactor
from tests.support.ports import free_port
from tests.support.service import ServiceTestCase
from tests.support.services import Record, Service, Twist
from tests.support.supervised import SupervisedTestCase

__all__ = [
    "PATIENCE", "RULES", "Child", "InteropTestCase", "MuxTestCase", "Peer", "Record", "Service",
    "ServiceTestCase", "SupervisedTestCase", "Twist", "VirtualTime", "WorkersTestCase", "connect",
    "customize", "eventually", "for_each", "free_port", "leave_unmeasured", "listen",
    "make_authority", "make_folder", "output_of", "pair", "reactor", "run", "set_limits",
]  # fmt: skip

"""What a test needs, by one name each: `tests/README.md` says which of it is for what."""

from tests.admin.asking import AdminCase
from tests.cli.support import CommandTestCase, Terminal
from tests.interop.children import (
    PATIENCE,
    Child,
    InteropTestCase,
    eventually,
    has_ipv6,
    leave_unmeasured,
    listens,
    output_of,
    run,
    write,
)
from tests.interop.namespaces import Namespace, cable, mounted
from tests.interop.originals import Named
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import make_certificate
from tests.processes.running import RULES, WorkersTestCase, customize, set_limits
from tests.programs import require_program, run_text
from tests.support.certificates import Identity, authority, make_authority
from tests.support.changes import change_constants, change_environment, pretend_user
from tests.support.datagrams import Talker, turn
from tests.support.each import for_each
from tests.support.echo import EchoServer, ThreadServer
from tests.support.folders import make_folder
from tests.support.mux import MuxTestCase, VirtualTime, backend_at
from tests.support.peers import Peer, PeerFactory, close, connect, listen, pair, reactor
from tests.support.ports import free_port
from tests.support.proc import family_of, halted, is_gone, workers_of
from tests.support.secure import SecurePeer, client_context, connect_tls
from tests.support.service import ServiceTestCase
from tests.support.services import RELAYS, Record, Service, Twist
from tests.support.supervised import SupervisedTestCase

__all__ = [
    "EXAMPLES", "PATIENCE", "RELAYS", "RULES", "AdminCase", "Child", "CommandTestCase", "EchoServer", "Example", "Identity",
    "InteropTestCase", "MuxTestCase", "Named", "Namespace", "Peer", "PeerFactory", "Record", "ScenarioTestCase", "SecurePeer",
    "Service", "ServiceTestCase", "SupervisedTestCase", "Talker", "Terminal", "ThreadServer", "Twist",
    "VirtualTime", "WorkersTestCase", "authority", "backend_at", "cable", "change_constants", "change_environment",
    "client_context", "close", "connect", "connect_tls", "customize", "eventually", "family_of", "for_each", "free_port", "halted",
    "has_ipv6", "is_gone", "leave_unmeasured", "listen", "listens", "make_authority", "make_certificate", "make_folder", "mounted",
    "output_of", "pair", "pretend_user", "reactor", "require_program", "run", "run_text", "set_limits", "turn", "workers_of",
    "write",
]  # fmt: skip

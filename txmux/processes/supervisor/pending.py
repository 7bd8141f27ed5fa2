"""The rules of a reload, until they are in force."""

import socket
from collections.abc import Mapping

import attrs
from twisted.internet.defer import Deferred

from txmux.backends.upstreams import PreparedUpstreams
from txmux.client.tls.terminations import PreparedTerminations
from txmux.processes.workers.worker import Worker
from txmux.rules.model import Rules


@attrs.define(eq=False)
class PendingRules:
    """The rules of a reload that is being prepared; `preparing` has the process ID of each worker."""

    rules: Rules
    sockets: Mapping[str, socket.socket]
    version: int
    upstreams: PreparedUpstreams
    terminations: PreparedTerminations
    preparing: dict[Worker, int] = attrs.field(factory=dict)
    ready: Deferred[None] = attrs.field(factory=Deferred)

"""A test case with a second process that takes flows over, as far as a test's own process can be one."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from tests.support.datagrams import udp_listener
from tests.support.peers import reactor
from tests.udp.test_relaying import FlowCase
from txmux.net.channel import messages
from txmux.net.channel.message import Message
from txmux.rules.model import Listener, Route
from txmux.udp.handover import adopt_flows, end_flows, hand_over_flows
from txmux.udp.listener import UDPListener
from txmux.udp.port import DatagramPort


class There:
    """Another process, which gets what goes through a channel: JSON, and duplicates of descriptors.

    Args:
        listener: What serves there; nothing takes flows if not given.
        port: Where datagrams come in there.
        edit: Changes what is told on its way.
        meanwhile: Is called before the answer.
    """

    def __init__(
        self,
        listener: UDPListener | None = None,
        port: DatagramPort | None = None,
        edit: Callable[[dict[str, Any]], object] = lambda _: None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self._taken = None if listener is None or port is None else (listener, port)
        self._edit = edit
        self._meanwhile = meanwhile

    def ask(
        self, message: Message, *, seconds: float, descriptors: Sequence[int], **values: Any
    ) -> Deferred[Any]:
        assert (message, seconds > 0) == (messages.ADOPT_FLOWS, True)
        flows = json.loads(json.dumps(values["flows"]))
        for reported in flows:
            self._edit(reported)
        answer = adopt_flows([*map(os.dup, descriptors)], flows, lambda *_: self._taken)
        self._meanwhile()
        return succeed(json.loads(json.dumps(answer)))

    def send(self, message: Message, **values: Any) -> None:
        assert (message, self._taken is None) == (messages.END_FLOWS, False)
        assert self._taken is not None
        end_flows(self._taken[0].connections, values["reasons"])


class HandoverCase(FlowCase):
    """A service, and another one that can take its flows."""

    @property
    def old(self) -> Any:
        return self.running.listeners[0]

    def there(
        self,
        routes: Sequence[Route] | None = None,
        settings: Listener | None = None,
        **options: Any,
    ) -> There:
        """Make the other process, with the same rules if no others are given. It reads from now on, and nobody here does."""
        old = self.old
        new = udp_listener(
            self.running.rules.routes if routes is None else routes,
            settings or old.configuration.settings,
            reactor,
            old._access_log,
        )
        self.new: Any = new
        here: Any = self.running.ports[0]
        here.stopReading()
        port = self.port_there = new.listen(here._socket)
        port.place = here.place
        port.await_flows()
        self.addCleanup(self._end, new, port)
        return There(new, port, **options)

    async def _end(self, new: UDPListener, port: DatagramPort) -> None:
        new.abort("killed")
        port.stopListening()
        await new.stopped()

    async def hand_over(self, **options: Any) -> int:
        return await self.finish(self.there(**options))

    async def finish(self, there: There) -> int:
        count = await hand_over_flows([*self.old.connections], there)
        self.port_there.await_no_more()
        return count

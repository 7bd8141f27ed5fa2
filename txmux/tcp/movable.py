"""A client's connection that may go on in another process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.tcp.client_end import ClientEnd
from txmux.tcp.moving import MovedConnection
from txmux.tcp.stage import OVER
from txmux.tcp.stages.relaying import Adopted, Relaying

if TYPE_CHECKING:
    from txmux.access.admission import Admission
    from txmux.access.per_source import Permit
    from txmux.rules.model import Logged
    from txmux.tcp.moving import GiveBack, Sockets
    from txmux.tcp.stage import Stage
    from txmux.telemetry.counting.counts import RouteCounts


class MovableEnd(ClientEnd):
    """The client's end of a connection, as far as another process may go on with it.

    Attributes:
        stage: What it is at.
        logged: Whether it gets a line in the access log, or only if there is something to look into.
        admitted: Whether it was let in.
        permit: What counts it for its source, if that is counted.
        counted: What counts it for its route; ``None`` once it is over.
    """

    stage: Stage = OVER
    logged: Logged = True
    admitted = False
    permit: Permit | None = None
    counted: RouteCounts | None
    _counted_in = _counted_out = 0

    def suspend(self) -> tuple[MovedConnection, Sockets] | None:
        """Stand still, and give what another process needs to go on; `resume` or `let_go` is next.

        Returns:
            ``None`` if it cannot be moved: it is not relayed between plain sockets.
        """
        stage = self.stage
        if not isinstance(stage, Relaying | Adopted):
            return None
        relay = stage.relay
        state = relay.suspend()
        if state is None:
            return None
        age, now = self.elapsed_ms() / 1000, self.runtime.clock.seconds()
        number = self.configuration.version
        moved = MovedConnection(self.record, age, self.logged, relay.timeouts, state, number, now)
        return moved, stage.sockets

    def resume(self, moved: MovedConnection) -> None:
        """Go on after all."""
        assert isinstance(self.stage, Relaying | Adopted)  # noqa: S101 - it was suspended there
        self.stage.relay.resume(moved.relay)

    @property
    def keeps_place(self) -> bool:
        """Whether its server has a limit, for which it counts wherever it goes on."""
        return isinstance(self.stage, Relaying | Adopted) and self.stage.keeps_place

    def count_elsewhere(self) -> Admission:
        """Leave it to another process, which is told of it next, to count it for limits; give what has. `let_go` follows."""
        if self.admitted:
            self.admitted = False
            self.configuration.admission.move_away(self.permit)
        return self.configuration.admission

    def let_go(self, *, keeps_place: bool = False) -> GiveBack | None:
        """Forget a connection that goes on elsewhere, and is logged there.

        Args:
            keeps_place: Whether it still counts here for the limit of its server.

        Returns:
            What then has to be called when it has ended.
        """
        stage = self.stage
        assert isinstance(stage, Relaying | Adopted)  # noqa: S101 - as above
        give_back = stage.move_away() if keeps_place else None
        self.count_bytes()
        if self.counted is not None:
            self.configuration.counts.moved_away(self.counted)
            self.counted = None
        stage.relay.let_go()
        self.logged = False
        self.over("done")
        return give_back

    def count_bytes(self) -> None:
        """Count what has been moved until now."""
        if self.counted is not None and self.record.detect_ms is not None:
            moved = self.stage.moved()
            self.configuration.counts.moved(
                self.counted,
                moved.bytes_in - self._counted_in,
                moved.bytes_out - self._counted_out,
            )
            self._counted_in, self._counted_out = moved.bytes_in, moved.bytes_out

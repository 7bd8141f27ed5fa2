"""What serves now: it is opened, and has other rules served in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from txmux.control import Report
from txmux.errors import MuxError
from txmux.live.versions import number_in
from txmux.processes.kinds import Kinds
from txmux.processes.privilege.account import account_of
from txmux.processes.supervisor.changing import change_workers
from txmux.processes.supervisor.parent import Parent
from txmux.rules.changes import changes
from txmux.rules.lint.warnings import lint
from txmux.serving.endpoints import check_servers
from txmux.serving.opening import Opening
from txmux.serving.serving import Serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.observe.counting.counters import Counters
    from txmux.processes.privilege.account import Account
    from txmux.processes.privilege.privilege import Privilege
    from txmux.processes.supervisor.counting import Counting
    from txmux.processes.upgrade.changeover import Changeover
    from txmux.rules.model import Rules
    from txmux.serving.store import ListeningSockets

__all__ = ["Current"]


class Current:
    """This process or workers, whichever the rules want.

    Args:
        reactor: The process's own, if there are to be workers.
        sockets: Those of the service.
        privilege: What the service may do beyond its user.
        changeover: Opens the sockets, or has those of the process whose place this one takes.
        counting: What all processes count together.
        counters: Those of all processes.
        fail: Is told what the service cannot go on with.

    Attributes:
        opened: What serves; ``None`` before the start and after the end.
        kinds: It, and what keeps connections from before.
        account: Whom workers become, and this process at its start; ``None`` if the rules name nobody.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        sockets: ListeningSockets,
        privilege: Privilege,
        changeover: Changeover,
        counting: Counting,
        counters: Counters,
        fail: Callable[[MuxError], object],
    ) -> None:
        self._reactor = reactor
        self._sockets = sockets
        self._privilege = privilege
        self._changeover = changeover
        self._counting = counting
        self._counters = counters
        self._fail = fail
        self._opening = Opening(reactor, sockets, counting.admissions, counters, fail)
        self.kinds = Kinds(sockets, self._opening, counting, lambda: privilege.opener)
        self.opened: Serving | Parent | None = None
        self.account: Account | None = None

    def running(self) -> list[Serving | Parent]:
        """Give what serves, and what keeps connections from before."""
        return [*([] if self.opened is None else [self.opened]), *self.kinds.retiring]

    # The start.

    def open(self, rules: Rules, served: Callable[[], object]) -> Serving | Parent:
        """Open all sockets; workers are yet to be started.

        Args:
            rules: Which.
            served: Is told when all workers serve, or could if they accepted clients.

        Raises:
            MuxError: That cannot be; no socket is left open.
        """
        for warning in lint(rules):
            self._log.warn("{warning}", warning=str(warning))
        self.account = account_of(rules)
        check_servers(self._reactor, rules.servers())
        self._privilege.keep(rules, self.account)
        self._counters.extend(rules)
        has_workers = rules.settings.has_workers
        self.opened = self._parent(rules, served) if has_workers else self._serving(rules)
        return self.opened

    def _parent(self, rules: Rules, served: Callable[[], object]) -> Parent:
        parent = Parent(
            rules,
            self._reactor,
            self._sockets,
            self._counting.limits(rules),
            self._privilege.opener,
            self._counters,
            self._fail,
            served=served,
            accepting=not self._changeover.is_waiting,
        )
        parent.generation = number_in(self._changeover.state, rules)
        parent.check(self._owner())
        self._changeover.open(rules)
        return parent

    def _serving(self, rules: Rules) -> Serving:
        accepting = not self._changeover.is_waiting
        serving = self._opening.make(rules, self._owner(), accepting=accepting)
        serving.number = number_in(self._changeover.state, rules)
        try:
            self._changeover.open(rules)
        except MuxError:
            serving.give_up()
            raise
        self._opening.listen_all(serving, rules, self._sockets.sockets(), {})
        return serving

    def confine(self, rules: Rules) -> None:
        """Have this process, if it serves, give up to open files by itself."""
        if isinstance(self.opened, Serving):
            self._privilege.confine(rules)

    def _owner(self) -> tuple[int, int] | None:
        return self.account.owner if self.account else None

    # Other rules.

    async def change(self, opened: Serving | Parent, before: Rules, rules: Rules) -> Report:
        """Have other rules served, by whichever kind they want.

        Args:
            opened: What serves.
            before: The rules that it serves.
            rules: The others.

        Raises:
            MuxError: They cannot be; nothing has changed.
        """
        different = changes(before, rules)
        afresh = bool(str(different))
        if isinstance(opened, Parent) != rules.settings.has_workers:
            self._privilege.keep(rules, self.account)
            self.opened, older = await self.kinds.change(opened, rules, self._owner())
        elif isinstance(opened, Parent):
            older = await change_workers(opened, self._sockets, rules, self._owner(), afresh=afresh)
        else:
            older = await self._opening.change(opened, rules, self._owner(), afresh=afresh)
        self._privilege.commit()
        self.confine(rules)
        if not afresh:
            return Report(ok=True, changes="nothing changed")
        for warning in lint(rules):
            self._log.warn("{warning}", warning=str(warning))
        if rules.settings.drain_removed:
            gone = different.routes.gone, different.backends.gone
            self.kinds.end_removed(self.opened or opened, *gone)
        return Report(ok=True, changes=different.told(older))

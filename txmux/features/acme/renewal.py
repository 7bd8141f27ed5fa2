"""Renews the certificates of a service by ACME, and reports on them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txmux.classes import define
from txmux.client.parts import ServicePart
from txmux.errors import MuxError
from txmux.features.acme import rows
from txmux.features.acme.authority import Authority, UnusableError
from txmux.features.acme.folder import (
    NO_CERTIFICATE,
    AcmeFolder,
    ShownCertificate,
    authors_of,
    is_of_another,
    make_first,
)
from txmux.features.acme.reading import FOLDER, AcmeSettings, accounts, asked_for
from txmux.net.tls.errors import TLSFileError
from txmux.net.turns import look_in_thread
from txmux.rules.model import Rules
from txmux.telemetry.attention import AttentionItem
from txmux.telemetry.formatting import duration, utc_time
from txmux.telemetry.sources import Source
from txmux.wire import codec
from txmux.wire.codec import NUMBER, TEXT, WHOLE, optional, sent

_AT_ONCE = 4  # orders at once

_FIRST_WAIT, _GROWTH, _LONGEST_WAIT = 15.0, 4.0, 6 * 3600.0
"""Seconds between two tries: at most five in an hour, the failed validations that Let's Encrypt allows."""

_UNREACHED_GROWTH, _UNREACHED_LONGEST = 2.0, 3600.0
"""The same while the authority cannot be reached, and counts nothing; for all names together, and for each."""

_LOCKED = 5.0  # seconds between two tries to get the lock that another machine has
_SET = 1.0  # seconds by which the clock differs from the monotonic one once it was set, and not only adjusted
_STUCK = 1800.0  # seconds without the lock after which an operator should know
_FULL = 60.0  # retry interval for writing an issued certificate, in seconds
_UNSAVED = 15.0  # the same to write the state
_UNASKED = 3600.0  # the same to ask for the renewal time
_RARELY, _OFTEN = 86400.0, 60.0  # the longest and the shortest time between two requests for that
_LEFT, _LEFT_OF_SHORT = 1 / 3, 1 / 2  # of its time, when a certificate is renewed
_SHORT = 10 * 86400.0  # seconds that one of short validity is valid at most

_NONE_YET = "has no certificate of an authority yet"
PROVISIONAL = f"{_NONE_YET}; clients see one that txmux has signed itself"

if TYPE_CHECKING:
    from txmux.features.acme.shared import SharedCertificates


@define
class Renewal:
    """The state of the renewal of one certificate; times are in seconds since 1970.

    Attributes:
        directory: The authority of the last request, and its profile if there was one; see `AcmeSettings.order`.
        failures: Consecutive failures.
        unreached: Consecutive requests without an answer.
        not_before: When the authority may be asked again.
        why: The last error.
        suggested: The renewal time that the authority suggests (ARI), if it does.
        ask_again: When to ask for that.
        author: For whom the certificate was issued: the user who had the name by a unit, or 0, for the operator.
        pending: An issued certificate that could not be written yet.
        written_at: When the state was written to disk.
    """

    directory: str = sent(TEXT, default="")
    failures: int = sent(WHOLE, default=0)
    unreached: int = sent(WHOLE, default=0)
    not_before: float = sent(NUMBER, default=0.0)
    why: str = sent(TEXT, default="")
    suggested: float | None = sent(optional(NUMBER), default=None)
    ask_again: float = sent(NUMBER, default=0.0)
    author: int | None = sent(optional(WHOLE), default=None)
    written_at: float = sent(NUMBER, default=0.0)
    pending: ShownCertificate = attrs.field(default=NO_CERTIFICATE, repr=False)

    @classmethod
    def read(cls, values: object) -> Renewal:
        """Read what `codec.write` returns; other versions of txmux may have other fields."""
        made = cls()
        for name, value in values.items() if isinstance(values, dict) else ():
            with suppress(TypeError):
                codec.update(made, {name: value})
        return made

    def follow(self, seconds: float) -> None:
        """Let its waits take as long as before a change of the clock."""
        self.not_before += seconds
        self.ask_again += seconds

    def due(self, shown: ShownCertificate, directory: str) -> float:
        if shown.is_self_signed or self.directory != directory or self.why:
            return self.not_before
        whole = shown.not_after - shown.not_before
        usual = shown.not_after - whole * (_LEFT_OF_SHORT if whole < _SHORT else _LEFT)
        when = usual if self.suggested is None else min(usual, self.suggested)
        return max(when, self.not_before)


@define(eq=False)
class Account:
    """An authority, and what came of asking it.

    Attributes:
        authority: Once it was asked.
        unreached: Consecutive requests without an answer.
        is_wary: Whether it gets one order at a time.
        quiet_until: When it may be asked again, in seconds since 1970.
    """

    settings: AcmeSettings
    authority: Authority | None = None
    source: Source | None = None
    unreached: int = 0
    is_wary: bool = False
    quiet_until: float = 0.0


def _make_shared(*of: Any) -> SharedCertificates:
    from txmux.features.acme.shared import SharedCertificates  # noqa: PLC0415 - few machines share

    return SharedCertificates(*of)


@define(eq=False, slots=False)
class Certificates(ServicePart):
    """Renews certificates, a few at a time, in `look`.

    Args:
        announce: Makes all listeners answer these challenges, by name; fires when they do.
        now: The time, in seconds since 1970.
        seconds: A monotonic clock.
        make_authority: Makes what asks the authority of some settings.
        make_shared: Makes what shares certificates with other machines, through a store.

    Attributes:
        is_stopped: Whether this process no longer renews.
    """

    _log = Logger()
    step = "renew certificates"

    _reactor: Any
    _announce: Callable[[Mapping[str, str]], Deferred[Any]]
    _time: Callable[[], float] = attrs.field(default=time.time, alias="now", kw_only=True)
    _seconds: Callable[[], float] = attrs.field(default=time.monotonic, kw_only=True)
    _make_authority: Callable[[Any, AcmeSettings, AcmeFolder, Source], Authority] = attrs.field(
        default=Authority, kw_only=True
    )
    _make_shared: Callable[..., SharedCertificates] = attrs.field(
        default=_make_shared, kw_only=True
    )
    _folder: AcmeFolder = attrs.field(factory=lambda: AcmeFolder(FOLDER), init=False)
    _accounts: dict[str, Account] = attrs.field(factory=dict, init=False)
    _requested: Mapping[str, AcmeSettings] = attrs.field(factory=dict, init=False)
    _shared: SharedCertificates | None = attrs.field(default=None, init=False)
    _names: tuple[str, ...] = attrs.field(default=(), init=False)
    _owners: Mapping[str, str] = attrs.field(factory=dict, init=False)
    _shared_names: Mapping[str, str] = attrs.field(factory=dict, init=False)
    _authors: Mapping[str, int] = attrs.field(factory=dict, init=False)
    _turns: dict[str, int] = attrs.field(factory=dict, init=False)  # the last of each owner
    _numbers: Iterator[int] = attrs.field(factory=partial(count, 1), init=False)
    _renewals: dict[str, Renewal] = attrs.field(factory=dict, init=False)
    _shown: dict[str, ShownCertificate] = attrs.field(factory=dict, init=False)
    _waiting: dict[str, list[Deferred[str]]] = attrs.field(factory=dict, init=False)
    _busy: dict[str, Deferred[Any]] = attrs.field(factory=dict, init=False)
    _own: Mapping[str, str] = attrs.field(factory=dict, init=False)
    _others: Mapping[str, str] = attrs.field(factory=dict, init=False)
    _refused_since: float | None = attrs.field(default=None, init=False)
    _unusable: dict[str, str] = attrs.field(factory=dict, init=False)
    _removed: set[str] = attrs.field(factory=set, init=False)  # by `prepare`

    is_stopped = _is_polling = False
    _folder_problem = _prepared_problem = ""
    _store: Any = None
    _save_again = 0.0

    def __attrs_post_init__(self) -> None:
        self._clock_ahead = self._time() - self._seconds()

    def prepare(self, rules: Rules, owner: tuple[int, int] | None) -> None:
        # Made now, since a failure from the commit on could not be undone.
        is_same = AcmeSettings.of(rules.settings).folder == self._folder.path
        known = self._names if is_same else ()
        authors = authors_of(rules)
        self._removed = {
            name
            for name in known
            if is_of_another(self._renewals[name].author, authors.get(name, 0))
        }
        why = self._prepared_problem = make_first(rules, owner, self._now(), self.in_use(), known)
        if why:
            self._report_folder(why)

    def abandon(self) -> None:
        """Write what is in force where another author's certificate took its place."""
        in_use = self.in_use()
        for name in self._removed & in_use.keys():
            with suppress(OSError):  # it stays in use, and is asked for again after a restart
                self._folder.write_certificate(name, in_use[name])
        if self._removed:
            self._save()

    def commit(self, rules: Rules) -> None:
        self.is_stopped, self._removed = False, set()
        requested = asked_for(rules.settings, rules.routes)
        requested = {name: its for name, its in requested.items() if its.directory is not None}
        before, self._accounts = self._accounts, {}
        for account, settings in accounts(requested.values()).items():
            known = before.get(account)
            is_same = known is not None and known.settings == settings
            self._accounts[account] = known if known and is_same else Account(settings)
        for name, its in self._requested.items():
            is_same = self._accounts.get(its.account) is before[its.account]
            if not is_same or requested.get(name) != its:
                self._stop_asking({name} & self._busy.keys())
                renewal = self._renewals[name]
                renewal.failures, renewal.unreached, renewal.not_before = 0, 0, 0.0
        folder = AcmeSettings.of(rules.settings).folder
        shown = self._shown if folder == self._folder.path else {}
        if folder != self._folder.path or not self._renewals:
            self._folder, self._renewals = AcmeFolder(folder), {}
            self._folder_problem = self._prepared_problem
        self._requested, self._names = requested, tuple(requested)
        asking = [
            (name, route, tls.author)
            for route in reversed(rules.routes)
            if (tls := route.terminate_tls) is not None
            for name in tls.managed
        ]
        self._owners = {name: rules.unit_of(route.section) for name, route, _ in asking}
        # At another machine, the name may be the operator's.
        self._shared_names = {
            name: name if author is None else f"{name} of user {author}"
            for name, _, author in asking
        }
        self._share(rules.settings.more.get("shared_limits") if requested else None)
        for name in {*self._waiting} - {*self._names}:
            self._answer(name, MuxError(f"the rules no longer ask for a certificate for {name}"))
        self._authors = authors_of(rules)
        self._prepare_renewals()
        had_none = {name for name, its in self._shown.items() if its.is_self_signed}
        self._shown = {name: self._certificate(name, shown) for name in self._names}
        self._stop_asking({*self._busy}.difference(self._names))
        for name in self._names:
            if name not in had_none and self._shown[name].is_self_signed:
                self._log.warn("{name} {words}", name=name, words=_instead(self._shown[name]))

    def _prepare_renewals(self) -> None:
        if self._names and not self._renewals:
            self._renewals = self._written()
        for name in self._names:
            renewal = self._renewals.get(name)
            if renewal is None or is_of_another(renewal.author, self._authors[name]):
                self._renewals[name] = Renewal()

    def _written(self) -> dict[str, Renewal]:
        renewals = {name: Renewal.read(values) for name, values in self._folder.state().items()}
        for renewal in renewals.values():  # the clock may have been set back since
            renewal.follow(min(0.0, self._now() - renewal.written_at))
        return renewals

    def _certificate(self, name: str, shown: Mapping[str, ShownCertificate]) -> ShownCertificate:
        # As listeners do, keep the last one if its file can no longer be read.
        found = self._folder.certificate(name)
        return shown.get(name, found) if found is NO_CERTIFICATE else found

    def stop(self) -> Deferred[Any]:
        """Stop until `commit`; fires when Redis is disconnected."""
        self.is_stopped = True
        self._names = ()
        for name in [*self._waiting]:
            self._answer(name, MuxError("the service is shutting down"))
        stopping = self._stop_asking()
        return stopping.addCallback(lambda _: self._share(None))

    def _share(self, store: Any) -> Deferred[Any]:
        disconnected: Deferred[Any] = succeed(None)
        if self._shared is not None and store != self._store:
            disconnected = self._shared.stop()
            self._shared = self._refused_since = None
        self._store = store
        if self._shared is None and store is not None:
            self._shared = self._make_shared(self._reactor, store, self._time)
        return disconnected

    def _stop_asking(self, names: Collection[str] | None = None) -> Deferred[Any]:
        """Cancel the requests for some names, or for all; fires when they have ended."""
        stopped = [self._busy.pop(name) for name in ([*self._busy] if names is None else names)]
        for work in stopped:
            work.cancel()
        return DeferredList(stopped)

    def look(self) -> None:
        if self._shared is not None and self._names and not self._is_polling:
            self._is_polling = True
            Deferred.fromCoroutine(self._answer_for_others(self._shared)).addErrback(
                lambda why: self._log.failure("challenges of other machines", why)
            )
        try:
            self._start_due()
        except Exception:  # noqa: BLE001 - the caller does other things in this second, too
            self._log.failure("certificates by ACME")

    def _now(self) -> float:
        """Return the time; all waits are by it, also those that began before the clock was set."""
        now = self._time()
        seconds = now - self._seconds() - self._clock_ahead
        if abs(seconds) >= _SET:
            self._clock_ahead += seconds
            for renewal in self._renewals.values():
                renewal.follow(seconds)
            for account in self._accounts.values():
                account.quiet_until += seconds
            self._save_again += seconds
            if self._refused_since is not None:
                self._refused_since += seconds
        return now

    def _start_due(self) -> None:
        before = self._clock_ahead
        now = self._now()
        if before != self._clock_ahead or (self._folder_problem and now >= self._save_again):
            self._save()
        # After failures, there is one order at a time: owners take turns, and a name that has just failed comes last.
        for name in sorted(self._names, key=self._turn):
            renewal, account = self._renewals[name], self._account(name)
            is_asked = name in self._waiting
            if name in self._busy or self._is_full(account):
                continue
            is_pending = renewal.pending is not NO_CERTIFICATE
            if is_pending and (is_asked or now >= renewal.not_before):
                self._write(name, renewal, renewal.pending)
                continue
            order = self._requested[name].order
            is_due = renewal.due(self._shown[name], order) <= now >= account.quiet_until
            if is_asked or (is_due and not is_pending):
                self._turns[self._owners[name]] = next(self._numbers)
                self._start(name, self._renew(name, renewal, order))
        for name in self._names:
            shown, account = self._shown[name], self._account(name)
            is_due = self._renewals[name].ask_again <= now >= account.quiet_until
            if is_due and not self._busy and not shown.is_self_signed:
                self._start(name, self._ask_time(self._renewals[name], shown, account))

    def _turn(self, name: str) -> tuple[bool, int, float]:
        last = self._turns.get(self._owners[name], 0)
        return name not in self._waiting, last, self._renewals[name].not_before

    def _account(self, name: str) -> Account:
        return self._accounts[self._requested[name].account]

    def _is_full(self, account: Account) -> bool:
        # One order at a time until the authority has answered.
        is_good = self._connected(account).is_connected and not account.is_wary
        busy = sum(self._account(name) is account for name in self._busy)
        return busy >= (_AT_ONCE if is_good else 1)

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        doing = self._busy[name] = Deferred.fromCoroutine(work)

        def ended(result: Any) -> Any:
            if self._busy.get(name) is doing:
                del self._busy[name]
            return result

        doing.addBoth(ended)
        doing.addErrback(lambda why: why.trap(CancelledError))
        doing.addErrback(lambda why: self._log.failure("the certificate of {name}", why, name=name))

    def renew(self, name: str) -> Deferred[str] | None:
        if self.is_stopped:
            raise MuxError("the service is shutting down")
        if name not in self._names:
            return None
        waiting: Deferred[str] = Deferred()
        self._waiting.setdefault(name, []).append(waiting)
        return waiting

    async def _renew(self, name: str, renewal: Renewal, order: str) -> None:
        try:
            there = await look_in_thread(self._folder.certificate, name)
        except OSError:  # its disk does not answer
            there = NO_CERTIFICATE
        # A file that is damaged or gone is no renewal: what was read from it stays in use.
        if name not in self._waiting and there not in (self._shown[name], NO_CERTIFICATE):
            # Another process has renewed it.
            written = self._written().get(name) or Renewal()
            self._renewals[name] = attrs.evolve(
                written, directory=order, author=self._authors[name]
            )
            self._shown[name] = there
            return
        if renewal.directory != order:
            renewal.directory, renewal.failures, renewal.suggested = order, 0, None
        try:
            issued = await self._ask_first(name, renewal, order)
        except MuxError as problem:
            self._failed(name, renewal, problem)
        except CancelledError:
            raise
        except Exception as problem:  # noqa: BLE001 - the authority must not be asked again at once
            why = f"{order}: unexpected, please report it: {problem!r}"
            self._failed(name, renewal, MuxError(why))
        else:
            if issued is not None:
                account = self._account(name)
                account.unreached, account.is_wary = 0, False
                self._use_new(name, renewal, issued)

    def _use_new(
        self, name: str, renewal: Renewal, certificate: ShownCertificate, where: str = ""
    ) -> None:
        renewal.failures, renewal.unreached = 0, 0
        # An authority that wants each one renewed at once must not be asked for one after another.
        was_hurried = (renewal.suggested or math.inf) <= self._now()
        renewal.ask_again = self._now() + _RARELY if was_hurried else 0.0
        renewal.suggested = None
        self._write(name, renewal, certificate)
        self._log.info(
            "the certificate of {name} is of {issuer}, valid until {until}{where}",
            name=name,
            issuer=certificate.issuer,
            until=utc_time(certificate.not_after),
            where=where,
        )

    async def _answer_for_others(self, shared: SharedCertificates) -> None:
        """Answer the challenges of another machine, and use the certificates that it has got."""
        try:
            challenges, is_changed = await shared.poll()
            others = {
                name: challenges[shared_name]
                for name, shared_name in self._shared_names.items()
                if name in self._names and shared_name in challenges
            }
            if others != self._others:
                self._others = others
                await self._announce(self.challenges)
            for name in self._names if is_changed else ():
                its = self._requested.get(name)
                if its is None:
                    continue
                pem = await shared.certificate(its.order, self._shared_names[name])
                is_current = shared is self._shared and its == self._requested.get(name)
                if pem is None or not is_current or name not in self._names:
                    continue
                if name not in self._busy and name not in self._waiting:
                    self._use_if_newer(name, pem)
        finally:
            self._is_polling = False

    def _use_if_newer(self, name: str, pem: bytes) -> None:
        shown, renewal = self._shown[name], self._renewals[name]
        certificate = self._from_another(name, pem)
        is_newer = shown.is_self_signed or certificate.not_after > shown.not_after
        if is_newer and certificate.not_after > self._now():
            self._refused_since = None
            renewal.directory = self._requested[name].order
            self._use_new(name, renewal, certificate, ", as another machine got it")

    def _from_another(self, name: str, pem: bytes | None) -> ShownCertificate:
        """Load what another machine has put into Redis, which may be of another version; without a password, anyone may have."""
        self._unusable.pop(name, "")
        if pem is None:
            return NO_CERTIFICATE
        try:
            certificate = ShownCertificate.read(pem, Path(f"{name} in Redis"))
            if name in certificate.names and not certificate.is_self_signed:
                return certificate
            self._unusable[name] = "it is another name's, or signed by itself"
        except TLSFileError as problem:
            self._unusable[name] = problem.what
        return NO_CERTIFICATE

    async def _ask_first(self, name: str, renewal: Renewal, order: str) -> ShownCertificate | None:
        """Get a certificate from another machine that has it, or else from the authority; ``None`` while another machine asks."""
        shared = self._shared
        if shared is None:
            return await self._ask(name)
        if not await shared.lock():
            now = self._now()
            renewal.not_before = now + _LOCKED
            self._refused_since = now if self._refused_since is None else self._refused_since
            return None
        self._refused_since = None
        try:
            shared_name = self._shared_names[name]
            got = await shared.certificate(order, shared_name)
            if name not in self._waiting:
                renewed = attrs.evolve(renewal, not_before=0.0, directory=order)
                there = self._from_another(name, got)
                is_other = there != self._shown.get(name, NO_CERTIFICATE)
                if is_other and renewed.due(there, order) > self._now():
                    return there
            issued = await self._ask(name)
            seconds = max(1, issued.not_after - self._now())
            await shared.put(order, shared_name, issued.pem, seconds)
            self._unusable.pop(name, None)
        finally:
            await shared.unlock()
        return issued

    async def _ask(self, name: str) -> ShownCertificate:
        try:
            authority = self._connected(self._account(name))
            profile = self._requested[name].profile
            pem = await authority.issue(name, partial(self._show, name), profile)
            return ShownCertificate.read(pem)
        finally:
            await self._show(name, "")

    async def _show(self, name: str, digest: str) -> None:
        """Make listeners answer the challenge of a name, or no longer if `digest` is empty."""
        if self._own.get(name, "") == digest:
            return
        self._own = {other: shown for other, shown in self._own.items() if other != name}
        if digest:
            self._own = {**self._own, name: digest}
        shared = self._shared
        if shared is not None:
            names = self._shared_names
            await shared.show({names.get(name, name): shown for name, shown in self._own.items()})
        if self.is_stopped:
            return
        await self._announce(self.challenges)
        if digest and shared is not None and shared.is_up:
            await deferLater(self._reactor, shared.spread)

    def state(self) -> Mapping[str, Any]:
        return {"challenges": self.challenges}

    @property
    def challenges(self) -> Mapping[str, str]:
        return {**self._others, **self._own}

    def _connected(self, account: Account) -> Authority:
        if account.authority is None:
            effect = "certificates are not renewed until it answers"
            settings = account.settings
            source = account.source = Source(
                "acme", settings.account, effect, self._reactor.seconds
            )
            account.authority = self._make_authority(self._reactor, settings, self._folder, source)
        return account.authority

    def _failed(self, name: str, renewal: Renewal, problem: MuxError) -> None:
        now, account = self._now(), self._account(name)
        renewal.why = str(problem)
        wait = getattr(problem, "wait", 0.0)
        if getattr(problem, "counts", True):
            account.unreached, account.is_wary = 0, wait > 0
            if getattr(problem, "is_for_all", False):
                account.quiet_until = max(account.quiet_until, now + wait)
            wait = max(wait, _after(renewal.failures, _GROWTH, _LONGEST_WAIT))
            renewal.failures += 1
            renewal.unreached = 0
        else:
            own = _after(renewal.unreached, _UNREACHED_GROWTH, _UNREACHED_LONGEST)
            renewal.unreached += 1
            wait = max(own, self._wait_for_all(account, now, wait))
        renewal.not_before = now + wait
        if not isinstance(problem, UnusableError):
            self._log.error(
                "no certificate for {name}: {why}; the next try is in {wait}{more}",
                name=name,
                why=renewal.why,
                wait=duration(int(wait)),
                more=", and none for other names before" if account.quiet_until > now else "",
            )
        with suppress(OSError):  # `_save` reports that the folder cannot be written
            self._folder.sign_missing([name], now + _RARELY, self.in_use())
            self._shown[name] = self._folder.certificate(name)
        self._save()
        self._answer(name, problem)

    def _wait_for_all(self, account: Account, now: float, wait: float) -> float:
        """Ask an authority for no name for a while, and return for how long; of several failures at once, only the first counts."""
        if now >= account.quiet_until:
            wait = max(wait, _after(account.unreached, _UNREACHED_GROWTH, _UNREACHED_LONGEST))
            account.unreached += 1
            account.is_wary, account.quiet_until = True, now + wait
        return account.quiet_until - now

    def _answer(self, name: str, result: str | Exception) -> None:
        for waiting in self._waiting.pop(name, ()):
            if isinstance(result, str):
                waiting.callback(result)
            else:
                waiting.errback(result)

    def _write(self, name: str, renewal: Renewal, certificate: ShownCertificate) -> None:
        renewal.pending, renewal.author = certificate, self._authors[name]
        try:
            self._folder.write_certificate(name, certificate.pem)
        except OSError as problem:
            renewal.why = (
                f"it is there, but cannot be written to '{self._folder.path}': {problem.strerror}"
            )
            renewal.not_before = self._now() + _FULL
            self._log.error("the certificate of {name}: {why}", name=name, why=renewal.why)
            self._answer(name, MuxError(renewal.why))
            return
        renewal.pending, renewal.why, renewal.not_before = NO_CERTIFICATE, "", 0.0
        self._shown[name] = certificate
        self._save()
        self._answer(name, f"{name}: renewed, valid until {utc_time(certificate.not_after)}")

    async def _ask_time(self, renewal: Renewal, shown: ShownCertificate, account: Account) -> None:
        try:
            when, again = await self._connected(account).renewal_time(shown.pem)
        except UnusableError:
            self._wait_for_all(account, self._now(), 0.0)
            return
        except MuxError as problem:
            renewal.ask_again = self._now() + max(_UNASKED, getattr(problem, "wait", 0.0))
            names = ", ".join(shown.names)
            self._log.warn("when to renew {names} is unknown: {why}", names=names, why=problem)
        else:
            account.unreached, account.is_wary = 0, False
            renewal.suggested = when
            renewal.ask_again = self._now() + min(max(again, _OFTEN), _RARELY)
        self._save()

    def _save(self) -> None:
        state = {}
        for name, renewal in self._renewals.items():
            not_before = max(renewal.not_before, self._quiet(name))
            written = attrs.evolve(renewal, not_before=not_before, written_at=self._now())
            state[name] = codec.write(written)
        if not self._names:
            self._folder_problem = ""
            return
        try:
            self._folder.check()
            self._folder.write_state(state)
            self._folder_problem = ""
        except OSError as problem:
            self._report_folder(f"cannot write to '{self._folder.path}': {problem.strerror}")

    def _report_folder(self, why: str) -> None:
        before, self._folder_problem = self._folder_problem, why
        self._save_again = self._now() + _UNSAVED
        if why != before:
            self._log.error("{why}", why=why)

    def _quiet(self, name: str) -> float:
        return self._account(name).quiet_until if name in self._requested else 0.0

    def in_use(self) -> dict[str, bytes]:
        return {name: shown.pem for name, shown in self._shown.items() if not shown.is_self_signed}

    # For the operator.

    def sources(self) -> Iterator[Source]:
        for account in self._accounts.values() if self._names else ():
            if account.source is not None:
                yield account.source
        if self._shared is not None:
            yield self._shared.source

    def troubles(self) -> Iterator[AttentionItem]:
        if self._folder_problem:
            yield rows.CERTIFICATES_NOT_KEPT.item(text=self._folder_problem)
        stuck = 0.0 if self._refused_since is None else self._now() - self._refused_since
        if stuck > _STUCK:
            yield rows.OTHER_ASKS.item(self._refused_since, age=duration(int(stuck)))
        for name, why in self._unusable.items():
            if name in self._names:
                yield rows.SHARED_UNUSABLE.item(name=name, why=why)
        for name in self._names:
            why, shown = self._renewals[name].why, self._shown[name]
            if shown.is_self_signed:
                row = rows.NO_CERTIFICATE if why else rows.CERTIFICATE_AWAITED
                yield row.item(name=name, provisional=_instead(shown), why=why)
            elif why:
                has_ended = shown.not_after <= self._now()
                row = rows.ENDED_NOT_RENEWED if has_ended else rows.ENDS_NOT_RENEWED
                yield row.item(name=name, until=utc_time(shown.not_after), why=why)

    def seconds_left(self) -> dict[str, float]:
        """Return by name in how many seconds its certificate expires; 0 for a self-signed one."""
        now = self._now()
        return {
            name: 0.0 if self._shown[name].is_self_signed else self._shown[name].not_after - now
            for name in self._names
        }

    def certificates(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "names": [*shown.names] or [name],
                "issuer": shown.issuer,
                "not_before": shown.not_before,
                "not_after": shown.not_after,
                "is_self_signed": shown.is_self_signed,
                "next_renewal": max(
                    self._renewals[name].due(shown, its.order), self._now(), self._quiet(name)
                ),
                "authority": its.authority,
                "profile": its.profile or None,
            }
            for name in self._names
            for shown, its in [(self._shown[name], self._requested[name])]
        ]


def _instead(shown: ShownCertificate) -> str:
    return f"{_NONE_YET}; clients are refused" if shown is NO_CERTIFICATE else PROVISIONAL


def _after(failures: int, growth: float, longest: float) -> float:
    return min(longest, _FIRST_WAIT * growth ** min(failures, 20))

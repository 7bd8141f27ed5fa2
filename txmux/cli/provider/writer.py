"""Writes the rules file of a provider: checked together with the rules that include it, and as a whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.classes import define
from txmux.errors import MuxError, printable
from txmux.files import replace_file
from txmux.interfaces import ProvidedObject
from txmux.rules.collecting import uncollected
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.files import SourceFile, read_source
from txmux.rules.reading.ini import read_ini
from txmux.rules.reading.parser import load_draft
from txmux.rules.reading.units import with_units
from txmux.telemetry.formatting import plural
from txmux.telemetry.provider_state import MODE, StateFile
from txmux.telemetry.sources import LONGEST_WHY

_EVERY = 1.0  # seconds between two writes, at least
# Times as long as the last one took, so that very many rules leave the processor to others.
_LOAD = 2
_SELDOM = 20  # the same for what has lost to another file, which may last
_AGAIN = 5.0  # seconds until rules with errors are looked at again, and a service that has not reloaded is asked again
_MOST_NAMED = 100  # objects that are left out, in the comments of the file
_PARTS = 16  # of a file that is too large, one of which is left out at once
_LONGEST_PAUSE = 300.0  # seconds: who may not ask needs not do so often

_PLACE = re.compile(r"^.*?: \[[^\]]*\] \w+: ")  # before the message of a problem

_Objects = Callable[[Any], Sequence[ProvidedObject]]
_Served = Callable[[Sequence[ProvidedObject], str], object]


class _PostponedError(MuxError):
    """The file cannot be written now."""


@define(eq=False)
class ProviderWriter:
    """Writes a provider's file, and asks the service to reload it.

    Args:
        path: The file.
        rules: The rules file that includes it.
        ask: Asks the running service; see `RulesWriter`.
        tell: Gets a line on the state, for systemd.
        listen_keys: What ``[listen]`` sections of objects may set; see `IProvider`.
    """

    _log = Logger()

    _reactor: Any
    _path: Path
    _rules: Path
    ask: Callable[..., Awaitable[Any]]
    _tell: Callable[[str], object] = lambda _: None
    _listen_keys: Collection[str] = ()
    _objects: _Objects = attrs.field(default=lambda _: (), init=False)
    _served: _Served = attrs.field(default=lambda *_: None, init=False)
    _failing: str = attrs.field(default="", init=False)  # what of the source, and why
    _unserved: str = attrs.field(default="", init=False)  # why the service may not have the file
    _untaken: dict[str, str] = attrs.field(factory=dict, init=False)  # why, by the names of units
    _others: Collection[str] = attrs.field(default=(), init=False)  # files that are included, too
    _asks_again: bool = attrs.field(default=False, init=False)
    _pause: float = attrs.field(default=_AGAIN, init=False)  # until it is asked again
    _timer: Any = attrs.field(default=None, init=False)
    _is_over: bool = attrs.field(default=False, init=False)
    _state: StateFile = attrs.field(init=False)
    _next: float = attrs.field(default=0.0, init=False)
    _left_out: dict[str, str] = attrs.field(factory=dict, init=False)
    _last: dict[str, str] = attrs.field(factory=dict, init=False)  # texts, by their kinds

    @_state.default
    def _make_state(self) -> StateFile:
        return StateFile(self._path)

    def write(
        self, objects: _Objects, served: _Served = lambda *_: None, failing: str = ""
    ) -> None:
        """Write the file soon; see `RulesWriter`."""
        self._objects, self._served, self._failing = objects, served, failing
        is_back = self._is_new("lost", "")
        self._report_source()
        if is_back:
            self._log.info("the source answers again")
        self._schedule(self._next - self._reactor.seconds())

    def lost(self, why: str) -> None:
        """Report that the source does not answer; see `RulesWriter`."""
        is_new = self._is_new("lost", why)
        self._report_source()
        if is_new:
            stays = f"{self._path} stays as it is" if self._path.exists() else "nothing is written"
            self._log.warn("{why}; {stays} until it answers", why=why, stays=stays)
            self._report(f"{why}; {stays}")

    def stop(self) -> None:
        """Stop writing, though its provider may still learn something."""
        self._is_over = True
        self._state.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_new(self, kind: str, text: str) -> bool:
        """Return whether a text differs from the last of its kind; before the first, there is an empty one."""
        before, self._last[kind] = self._last.get(kind, ""), text
        return text != before

    def _report(self, state: str) -> None:
        if self._is_new("reported", state):
            self._tell(state)

    def _report_source(self) -> None:
        """Tell the service why its file is not as it should be, if so."""
        lost, postponed = self._last.get("lost"), self._last.get("postponed")
        if not self._is_over:  # the lock would stay
            why = lost or (f"not written: {postponed}" if postponed else self._failing)
            self._state.report(why)

    def _schedule(self, seconds: float) -> None:
        seconds = max(seconds, 0)
        if self._is_over:
            return
        if self._timer is None:
            self._timer = self._reactor.callLater(seconds, self._write)
        elif self._timer.getTime() > self._reactor.seconds() + seconds:
            self._timer.reset(seconds)

    def _write(self) -> None:
        self._timer = None
        begun = self._reactor.seconds()
        why = ""
        try:
            with uncollected():
                self._replace(self._objects)
        except (OSError, MuxError) as problem:
            why = str(problem)
            self._schedule(_AGAIN)
        if self._is_new("postponed", why) and why:
            self._log.warn("{path} is not written: {why}", path=self._path, why=why)
            self._report(f"{self._path} is not written: {why}")
        self._report_source()
        now = self._reactor.seconds()
        self._next = max(now + _EVERY, begun + _LOAD * (now - begun))

    def _replace(self, make: _Objects) -> None:
        begun, has_lost = self._reactor.seconds(), False
        try:
            rules = load_draft(self._rules, _source(str(self._path), ""), keep=False)
        except RulesError as error:
            first, *others = error.problems
            more = f", and {len(others)} more" if others else ""
            raise _PostponedError(f"the rules have errors: {first}{more}") from None
        self._others = rules.files.texts.keys() - {str(self._path)}
        if str(self._path) not in rules.files.texts:
            line = f"[txmux]: include = {self._path.absolute().parent}/*.ini"
            raise _PostponedError(f"{self._rules} does not include it; write there in {line}")
        draft = _FileDraft(str(self._path), [self._allowed(made) for made in make(rules)])
        before = self._in_force()
        while problems := _problems(self._rules, draft.source, before):
            draft = draft.without(problems)
            has_lost |= any(problem.claimant for problem in problems)
        if has_lost:  # which may end without a change here
            self._schedule(max(_AGAIN, _SELDOM * (self._reactor.seconds() - begun)))
        self._log_left_out(draft.objects)
        text = draft.source.text.encode()
        served = plural(
            sum(bool(made.text and not made.problem) for made in draft.objects), "object"
        )
        state = f"{self._path}: {served}" + f"; {self._failing}" * bool(self._failing)
        with suppress(OSError):
            if self._path.read_bytes() == text:
                self._report(state)
                if self._asks_again:
                    Deferred.fromCoroutine(self._reload(draft.objects))
                elif self._untaken:
                    Deferred.fromCoroutine(self._reload(draft.objects, "GET", "/api/status"))
                else:
                    self._served(draft.objects, self._unserved)
                return
        self._path.parent.mkdir(exist_ok=True)
        replace_file(self._path, text, lambda number: os.fchmod(number, MODE))
        self._log.info("{path}: {served}", path=self._path, served=served)
        self._report(state)
        Deferred.fromCoroutine(self._reload(draft.objects))

    def _in_force(self) -> str:
        """Return what is written now, but for the units that the service has not taken."""
        with suppress(OSError):
            text, path = read_source(self._path).text, str(self._path)
            others = {f"{path} [unit {name}]" if name else path for name in self._untaken}
            return with_units(path, text, lambda name: name not in others)
        return ""

    def _allowed(self, one: ProvidedObject) -> ProvidedObject:
        """Leave an object out that sets of a listener what its provider may not."""
        sections = read_ini(one.text, "")[0] if "listen" in one.text else ()
        listeners = [its for its in sections if its.header.split()[:1] == ["listen"]]
        wrong = [key for its in listeners for key in its.entries if key not in self._listen_keys]
        if not wrong and (self._listen_keys or not listeners):
            return one
        what = f"{wrong[0]} of [listen]" if self._listen_keys else "[listen] sections"
        return attrs.evolve(one, text="", refusing="", problem=f"not for its provider: {what}")

    def _log_left_out(self, objects: Sequence[ProvidedObject]) -> None:
        left_out = {
            one.name: f" is left out: {one.problem}" if one.problem else f": {one.warning}"
            for one in objects
            if one.problem or one.warning
        }
        for name, problem in left_out.items():
            if self._left_out.get(name) != problem:
                why = printable(problem, LONGEST_WHY)
                self._log.warn("{name}{why}", name=printable(name), why=why)
        self._left_out = left_out

    async def _reload(self, objects: Sequence[ProvidedObject], *question: str) -> None:
        """Ask for a reload at once, or what became of the last one; a service that does not let this process has ``watch_rules``."""
        self._unserved, self._asks_again = "the service has not answered yet", False
        why, served = "", self._served
        try:
            answer = await self.ask(*(question or ("POST", "/api/reload")))
            self._untaken = dict(_untaken(answer, self._path.name, self._others))
        except MuxError as problem:
            why = printable(str(problem), LONGEST_WHY)
            # One that starts just now may have read its rules before the file was there.
            self._asks_again = True
            self._schedule(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE) if why else _AGAIN
        self._unserved = why
        if self._untaken and not why:
            self._schedule(_AGAIN)
        if self._is_new("not asked", why) and why:
            what = "the service does not reload at once, so watch_rules has to do it"
            self._log.info("{what}: {why}", what=what, why=why)
        with uncollected():
            served([*map(self._taken, objects)], why)

    def _taken(self, one: ProvidedObject) -> ProvidedObject:
        """Return an object with why the service has not taken its unit, if it has not."""
        why = self._untaken.get(one.unit, "") or self._untaken.get("", "")
        return attrs.evolve(one, text="", problem=why) if one.text and why else one


def _untaken(answer: Any, file: str, others: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the units of a file that a service has not taken, each with the reason; the file itself is an empty one.

    The service may see the file in another folder; `others` are the paths of other files.
    """
    for one in (answer or {}).get("untaken", ()):
        path, _, unit = one["unit"].removesuffix("]").partition(" [unit ")
        if Path(path).name == file and path not in others:
            yield unit, _PLACE.sub("", one["errors"][0])


def _problems(rules: Path, draft: SourceFile, before: str) -> Sequence[Problem]:
    try:
        load_draft(rules, draft, before)
    except RulesError as error:
        return error.problems
    return ()


def _source(path: str, text: str) -> SourceFile:
    return SourceFile(path, text, author=os.geteuid())


class _FileDraft:
    """A file that may have errors.

    Attributes:
        objects: In the order of the file, with those that are left out.
        source: Its text.
    """

    def __init__(self, path: str, objects: Sequence[ProvidedObject]) -> None:
        lines = ["# This file is written by a program: changes are lost."]
        left_out = [made for made in objects if made.problem]
        for made in left_out[:_MOST_NAMED]:
            why = printable(made.problem, LONGEST_WHY)
            lines.append(f"# left out: {printable(made.name)}: {why}")
        if left_out[_MOST_NAMED:]:
            lines.append(f"# left out: {len(left_out) - _MOST_NAMED} more, which the log names")
        owners: list[int | None] = [None] * (len(lines) + 1)  # of each line, counted from 1
        unit = ""
        for number, one in enumerate(objects):
            if one.text:
                its = one.text.split("\n")
                if one.unit != unit:
                    unit = one.unit
                    its = ["", f"[unit {unit}]", *its]
                lines += its
                owners += [number] * len(its)
        self.objects = objects
        self.source = _source(path, "\n".join([*lines, ""]))
        self._owners = owners

    def without(self, problems: Sequence[Problem]) -> _FileDraft:
        """Leave the objects out that have problems, each with its first, but for what keeps their places; raises if none of them has."""
        path = self.source.path
        whys: dict[int, str] = {}
        for problem in problems:
            line = problem.line if problem.path == path else 0
            owner = self._owners[line] if line < len(self._owners) else None
            if owner is not None:
                key = f"{problem.key}: " if problem.key else ""
                whys.setdefault(owner, f"{key}{problem.message}")
            elif (problem.path, problem.line) == (path, 0):  # the file is too large
                whys |= self._largest(f"it is one of the largest objects: {problem.message}")
        if not whys:
            raise _PostponedError(f"the rules would have errors: {problems[0]}")
        objects = [
            attrs.evolve(one, text=one.refusing, refusing="", problem=one.problem or whys[number])
            if number in whys
            else one
            for number, one in enumerate(self.objects)
        ]
        return _FileDraft(path, objects)

    def _largest(self, why: str) -> dict[int, str]:
        """Return the numbers of the largest objects with a part of the text, so that a few do not take the room of all others; of equal ones, the last.

        Those that only refuse clients stay: without them, the clients would reach what another object has for all.
        """
        sizes = [
            (len(made.text) * (not made.problem and made.text != made.refusing), number)
            for number, made in enumerate(self.objects)
        ]
        largest, size = {}, len(self.source.text) // _PARTS
        for its, number in sorted(sizes, reverse=True):
            if its and size >= 0:
                largest[number] = why
                size -= its
        return largest

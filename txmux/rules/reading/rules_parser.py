"""The sections of rules files become `Rules`, or all that is wrong in them."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import is_, itemgetter
from pathlib import Path
from typing import Any, TypeVar

import attrs

from txmux.classes import frozen
from txmux.detection.regex import counted
from txmux.detection.registry import installed_matchers
from txmux.interfaces import IProtocolMatcher
from txmux.rules.collecting import uncollected
from txmux.rules.installed import CONFLICTS, CONTRADICTIONS, networks_of, server_kind_of
from txmux.rules.model import Backend, Files, Listener, Outcome, Route, Rules, Section, Settings
from txmux.rules.model.section import KeyEntry
from txmux.rules.problems import InvalidValueError, Problem, RulesError
from txmux.rules.reading import backend, listener, route, service
from txmux.rules.reading.conflicts import (
    conflicts,
    has_handover,
    holders,
    loops,
    misplaced,
    put_holders_first,
    same_names,
    unknown_certificates,
    unshareable,
    wrong_transports,
)
from txmux.rules.reading.context import REFUSALS, OnDisk, RulesReading
from txmux.rules.reading.endpoints import missing_files, names_files
from txmux.rules.reading.files import FileReader, SourceFile, check_file, expand_section, is_pattern
from txmux.rules.reading.ini import parts_of, read_ini, split_list
from txmux.rules.reading.scope import EVERY, foreign_backends, shared_names
from txmux.rules.reading.sections import (
    HEADERS,
    TABLES,
    UNIT,
    missing_keys,
    read_keys,
    wrong_transport,
)
from txmux.rules.reading.service import CONTEXT
from txmux.rules.reading.units import UntakenUnits
from txmux.rules.reading.values import NAME

T = TypeVar("T")
_LONGEST_WAY, _LONGEST_NAME = 20, 1000
_EXAMPLES = {
    kind: {name: key.example for name, key in keys.items()} for kind, keys in TABLES.items()
}


@frozen
class _FilePart:
    """The sections of a part of a file; `line` is its first one, `variables` are those in it."""

    line: int
    sections: tuple[Section, ...]
    variables: tuple[str, ...]


@frozen(weakref_slot=False)
class _Value:
    """What a section was read as; `needs` as in `RulesReading`."""

    value: Any
    needs: tuple[tuple[Callable[[RulesReading, Any], object], Any, object], ...]


_Parts = dict[str, dict[str, _FilePart]]


def _comparable(files: Files) -> object:
    included = {item: [*paths] for item, paths in files.included.items()}
    return files.texts, included, files.variables, files.untaken, files.authors


@frozen
class LastRules:
    """The rules that were read last, so that what has not changed is not read again.

    Attributes:
        reading: What they were read by.
        parts: By file and text.
        values: By the identity of sections.
        naming_files: The sections whose endpoints name files.
    """

    rules: Rules
    reading: RulesReading
    parts: _Parts
    values: Mapping[int, _Value]
    naming_files: Sequence[Section]

    @property
    def matchers(self) -> Mapping[str, IProtocolMatcher]:
        return self.reading.matchers

    @property
    def is_installed(self) -> bool:
        return self.matchers is installed_matchers()

    def says(self, files: Files) -> bool:
        """Return whether these files come to the same rules, if their other conditions are the same."""
        # Where a file is as it was, what has come into a list since may be what it said in between.
        is_same = _comparable(files) == _comparable(self.rules.files)
        return is_same and self.reading.lists_are_as_read

    def is_still_so(self, main: SourceFile, matchers: Mapping[str, IProtocolMatcher]) -> bool:
        """Return whether reading all files again would come to the same rules."""
        rules, files, settings = self.rules, self.rules.files, self.rules.settings
        read = service.KEYS["workers"].kind.read
        if (
            files.untaken
            or not self.reading.looks_on_disk
            or matchers is not self.matchers
            or main.path != str(rules.path)
        ):
            return False
        now = FileReader(main)
        try:
            now.keep_for_operator(files.included)
            sources = [main, *(one for pattern in files.included for one in now.include(pattern))]
            for name in files.texts:
                now.text(Path(name))
            for path, what in self.reading.checked.items():
                check_file(path, what)
        except (OSError, ValueError, InvalidValueError):
            return False
        for name in files.variables:
            now.variable(name)
        found = attrs.evolve(now.files(), untaken=files.untaken, authors=files.authors)
        return (
            now.authors.items() <= files.authors.items()
            and _comparable(found) == _comparable(attrs.evolve(files, texts=files.on_disk))
            and self.reading.is_allowed_as_read(now.main)
            and not any(source.problems for source in sources)
            and not any(missing_files(self.naming_files))
            # As many as there are processors now, with `auto`.
            and all(
                read(item.text) == settings.workers for item in settings.section.items("workers")
            )
        )


class RulesParser:
    """Reads a rules file with all that it includes, and finds every problem. The arguments are those of `load` and `load_draft`."""

    def __init__(
        self,
        main: SourceFile,
        matchers: Mapping[str, IProtocolMatcher] | None,
        *,
        known: Files | None = None,
        draft: SourceFile | None = None,
        on_disk: OnDisk = "",
        alone: bool = False,
        last: LastRules | None = None,
        untaken: UntakenUnits | None = None,
    ) -> None:
        self._last = last
        self._untaken = untaken or UntakenUnits()
        self._parts: _Parts = {}
        self._cached: Mapping[int, _Value] = {}
        self._values: dict[int, _Value] = {}
        self._naming_files: list[Section] = []
        self._changed: list[Any] = []  # the values that are not taken over
        self._shifts: dict[tuple[str, str], int] = {}
        self._units: dict[str, list[tuple[int, str]]] = {}
        self._owners: dict[int, str] = {}  # the units of sections, by their identities
        self._entries: dict[object, KeyEntry] = {}
        self._path = main.path
        self._alone, self._on_disk = alone, on_disk
        self._files = FileReader(
            # What another process has sent may name nothing that is only here.
            main,
            known,
            draft,
            self._untaken.taken,
            reads_rest=untaken is not None,
            before=self._untaken.before.included,
        )
        if matchers is None:
            matchers = installed_matchers()
        self._reading = RulesReading(
            self._files,
            matchers,
            self._backend_called,
            networks_of,
            server_kind_of,
            on_disk=on_disk,
            alone=alone,
            before=last.reading if last else None,
        )
        self._reading.owners = self._owners
        self._reading.untaken = self._untaken.problems
        self._problems = self._reading.problems
        self._not_text: list[Problem] = []
        self._sections = self._reading.sections
        self._sections.update((kind, {}) for kind in HEADERS)
        self._backends: dict[str, Backend] = {}
        self._checked: tuple[Sequence[Route], Settings] = (), Settings()
        # Backends that are being read, each the fallback of the one before.
        self._begun: list[str] = []
        self._reading.add_author("", self._files.author("", ""))
        self._add(main)

    def rules(self) -> Rules:
        try:
            with uncollected(), counted(self._reading.count_states):
                return self._rules()
        finally:
            # The two refer to each other: all that was read would stay until a garbage collection.
            del self._reading

    def _rules(self) -> Rules:
        settings, last = self._settings(), self._last
        put_holders_first(self._sections, self._precedence)
        before = None if last is None else last.rules.settings
        if before is not None and (settings, settings.section) == (before, before.section):
            settings = before
        self._reading.settings = settings
        if last is not None and self._is_like(last, settings):
            self._cached = last.values
            self._reading.take_over_short_forms(last.reading)
        # Outcomes name backends, so these are read first.
        for name, section in self._named("backend"):
            if section is self._sections["backend"][name][0]:
                self._backend_called(name)
            else:
                self._value(name, section, self._read_backend)
        listeners = tuple(
            self._value(*named, self._read_listener) for named in self._named("listen")
        )
        routes = tuple(self._value(*named, self._read_route) for named in self._named("route"))
        self._check(settings, listeners, routes)
        self._problems += self._reading.too_many_states()
        files = self._files.files()
        untaken = {**files.untaken, **self._untaken.problems}
        lacking = {**files.lacking, **self._untaken.lacking}
        files = attrs.evolve(files, untaken=untaken, authors=self._reading.authors, lacking=lacking)
        not_text = {(problem.path, problem.line) for problem in self._not_text}
        problems = [p for p in self._problems if (p.path, p.line) not in not_text] + self._not_text
        if problems:
            order = {path: number for number, path in enumerate(files.texts)}
            raise RulesError(sorted(problems, key=lambda p: (order[p.path], p.line)))
        backends = {name: self._backends[name] for name in self._sections["backend"]}
        self._last, self._cached = None, {}
        path, lists = Path(self._path), self._reading.unit_lists
        return Rules(
            path, settings, listeners, routes, backends, files, self._shifts, self._units, lists
        )

    def _check(
        self, settings: Settings, listeners: Sequence[Listener], routes: Sequence[Route]
    ) -> None:
        """Find what does not go together."""
        self._checked, owners = (routes, settings), self._owners
        self._problems += (contested := [*self.contests()])
        listeners, routes = holders(listeners, contested), holders(routes, contested)
        checked, backends = self._to_check(listeners, routes), self._sections["backend"]
        self._problems += [*route.nestings(checked), *loops(listeners, checked, owners)]
        self._problems += wrong_transports(listeners, checked, self._backends.values(), owners)
        self._problems += misplaced(listeners, checked, owners)
        self._problems += () if self._alone else unknown_certificates(checked, self._unit_of)
        for find in CONFLICTS if not self._alone else ():
            self._problems += find(listeners, routes, settings, owners)
        self._problems += foreign_backends(self._of_units(listeners, routes), owners, backends)
        self._problems += backend.not_allowed(listeners, routes, owners, self._reading.scope)
        opened = [same[0] for same in self._sections["listen"].values()]
        self._problems += unshareable(opened, settings, self._units)
        if self._on_disk:
            for kind in self._sections:
                self._find_naming_files(kind)
            self._problems += missing_files(self._naming_files)
        # What a provider writes may bring the first one.
        is_provided = self._reading.may_be_provided
        if not (self._sections["listen"] or self._not_text or self._alone or is_provided):
            missing = "there is no [listen NAME] section"
            message = f"{missing}; add 'endpoint = :443' in a [listen NAME]"
            self._problems.append(Problem(self._path, 1, "", "", message))

    def _unit_of(self, section: Section) -> str:
        return self._owners.get(id(section), "")

    def contests(self, without: Collection[str] = ()) -> Iterator[Problem]:
        """Find what several sections claim, except those of some units."""
        owners, precedence = self._owners, self._precedence
        sections, (routes, settings) = self._sections, self._checked
        if without:
            left_out = {section for section, unit in owners.items() if unit in without}
            sections = {
                kind: {
                    name: its
                    for name, same in named.items()
                    if (its := [one for one in same if id(one) not in left_out])
                }
                for kind, named in sections.items()
            }
            routes = [its for its in routes if id(its.section) not in left_out]
        yield from same_names(sections)
        opened = [same[0] for kind in ("listen", "txmux") for same in sections[kind].values()]
        if next(conflicts(opened), None):  # only then is what is in force read
            yield from conflicts(opened, precedence)
        outer = {end.name: end.section for end in reversed(routes) if end.is_outer}
        yield from shared_names(sections["listen"], outer, owners, precedence)
        yield from route.managed_names(routes, settings, precedence)

    def _precedence(self, section: Section, claim: Any = "") -> int:
        return self._untaken.precedence(self._unit_of(section), section, claim)

    def _is_like(self, last: LastRules, settings: Settings) -> bool:
        """Return whether what all sections depend on is as it was."""
        is_same = (
            self._reading.scope.has_several_listeners == last.reading.scope.has_several_listeners
        )
        return is_same and CONTEXT(settings) == CONTEXT(last.rules.settings)

    def _of_units(
        self, listeners: Iterable[Listener], routes: Iterable[Route]
    ) -> Iterator[tuple[Section, str, Outcome | None]]:
        """Yield what sections of units lead to."""
        every: list[tuple[Section, str, Outcome | None]] = []
        if self._owners:
            every += [(one.section, "backend", one.outcome) for one in routes]
            every += [(one.section, "fallback", one.fallback) for one in self._backends.values()]
            for one in listeners:
                every += [(one.section, "default", one.default)]
                every += [(one.section, "silent", line.outcome) for line in one.silent]
        return (one for one in every if id(one[0]) in self._owners)

    def _to_check(self, listeners: Sequence[Listener], routes: Sequence[Route]) -> Sequence[Route]:
        """Return the routes that may not go with the others: those that have changed, if what all depend on has not."""
        last = self._last
        outer = [route for route in routes if route.is_outer]
        if (
            last is None
            or not _are_same(listeners, last.rules.listeners)
            or not _are_same(outer, [route for route in last.rules.routes if route.is_outer])
            or has_handover(route.outcome for route in routes)
        ):
            return routes
        changed = {*map(id, outer), *map(id, self._changed)}
        return [route for route in routes if id(route) in changed]

    def _find_naming_files(self, kind: str) -> None:
        last = self._last
        before = {*map(id, last.naming_files)} if last else set()
        read_before = last.values if last else {}
        for _, section in self._named(kind):
            is_known = id(section) in read_before
            if id(section) in before if is_known else names_files(section):
                self._naming_files.append(section)

    def _add(self, source: SourceFile) -> None:
        self._not_text += source.problems
        parts: list[tuple[int, str, _FilePart | None, list[Section]]] = []
        problems: list[Problem] = []
        is_same = not self._last or self._reading.is_by_same(self._last.rules.files, source.path)
        for line, text in parts_of(source.text):
            part = self._same_part(source.path, text) if is_same else None
            sections: list[Section] = []
            if part is None:
                sections, wrong = read_ini(text, source.path, _EXAMPLES, line, self._entries)
                problems += wrong
            parts.append((line, text, part, sections))
        is_ours = any(
            (part is not None and part.sections)
            or any(section.header.split()[0] in HEADERS for section in sections)
            for _, _, part, sections in parts
        )
        other = ""
        if problems or not is_ours:
            from txmux.rules.advice.keys import foreign_format  # noqa: PLC0415 - only for errors

            other = foreign_format(source.text)
        if other:
            # All its lines would be errors, and missing keys, too.
            self._not_text.append(Problem(source.path, 1, "", "", other))
            return
        self._problems += problems
        read = self._parts.setdefault(source.path, {})
        for line, text, part, sections in parts:
            read[text] = self._read_part(line, sections) if part is None else self._keep(part, line)

    def _same_part(self, path: str, text: str) -> _FilePart | None:
        """Return a part that was read before, if it reads the same."""
        last = self._last
        part = None if last is None else last.parts.get(path, {}).get(text)
        if last is None or part is None:
            return None
        before, now = last.rules.files.variables, self._files.variable
        return part if all(before[name] == now(name) for name in part.variables) else None

    def _keep(self, part: _FilePart, line: int) -> _FilePart:
        for section in part.sections:
            kind, _, name = section.header.partition(" ")
            if kind == UNIT:
                self._begin_unit(section, name, line)
                continue
            self._add_section(kind, name, section)
            if line != part.line:
                self._shifts[section.path, section.header] = line - part.line
        return part

    def _read_part(self, line: int, written_sections: Iterable[Section]) -> _FilePart:
        variables: list[str] = []

        def value_of(name: str) -> str | None:
            self._reading.refuse_others(f"${{{name}}}")
            variables.append(name)
            return self._files.variable(name)

        found: list[Section] = []
        for written in written_sections:
            section, problems = expand_section(written, None if self._alone else value_of)
            self._problems += problems
            kind, _, name = section.header.partition(" ")
            if kind == UNIT:
                self._begin_unit(section, name, section.line)
                found.append(section)
                continue
            if kind in HEADERS:
                message = self._header_message(kind, name)
            else:
                from txmux.rules.advice.keys import header  # noqa: PLC0415 - only for errors

                # A misspelt section is read as what it is meant to be, so that it is not reported as missing, too.
                matchers = self._reading.matchers
                kind, name, message = header(section, HEADERS, matchers, NAME.fullmatch)
            if message:
                self._problems.append(section.problem(message))
            if kind:
                self._add_section(kind, name, section)
                found.append(section)
        return _FilePart(line, tuple(found), tuple(variables))

    def _add_section(self, kind: str, name: str, section: Section) -> None:
        unit = self._reading.unit
        if kind == "listen" and not self._reading.add_listener(unit, name, section):
            return
        self._sections[kind].setdefault(name, []).append(section)
        if unit:
            self._owners[id(section)] = unit

    def _begin_unit(self, section: Section, name: str, line: int) -> None:
        units, message = self._units.get(section.path), ""
        if units is None and not self._alone:
            message = "is only for files that a pattern of 'include' finds; this file is one unit"
        elif not NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            message = f"needs a name of at most {_LONGEST_NAME:,} letters, digits, '.', '_' and '-', as in [unit docker]"
        elif section.entries:
            message = "takes no keys: it only says whose the sections after it are"
        if message:
            self._problems.append(section.problem(message, line=line))
        if units is not None and len(name) <= _LONGEST_NAME:
            self._add_unit(section.path, f"{section.path} [{section.header}]", line)

    def _add_unit(self, path: str, unit: str, line: int) -> None:
        self._units[path].append((line, unit))
        self._reading.unit = unit
        author = self._files.author(unit, path)
        if unit in self._untaken.problems:
            author = self._untaken.in_force.authors.get(unit, author)
        self._reading.add_author(unit, author)

    def _header_message(self, kind: str, name: str) -> str:
        if kind == "txmux":
            message = "takes no name; write [txmux]" if name else ""
        elif not name:
            message = f"needs a name; write {HEADERS[kind]}"
        elif not NAME.fullmatch(name):
            message = f"{name!r} is not a name; use letters, digits, '.', '_' and '-' only"
            from txmux.rules.advice.keys import name_meant  # noqa: PLC0415 - only for errors

            message += name_meant(kind, name, NAME.fullmatch)
        elif len(name) > _LONGEST_NAME:
            message = f"has a name of {len(name):,} characters; use at most {_LONGEST_NAME:,}"
        elif kind == "backend" and name in REFUSALS:
            message = f"{name!r} means to refuse the client; give the backend another name"
        else:
            message = ""
        return message

    def _named(self, kind: str) -> Iterator[tuple[str, Section]]:
        for name, sections in self._sections[kind].items():
            for section in sections:
                yield name, section

    def _settings(self) -> Settings:
        # A second [txmux] is an error already, whichever file it is in.
        name, section = next(self._named("txmux"), ("", None))
        if section is None:
            return Settings()
        includes = [one for its in section.items("include") for one in split_list(its.text)]
        self._files.keep_for_operator(includes)
        fields = self._read("txmux", name, section)
        self._problems += service.contradictions(section, fields)
        included = itertools.chain.from_iterable(fields.get("include", ()))
        # The operator's come first: another unit that contradicts them is wrong, not they.
        self._reading.may_be_provided = any(map(is_pattern, includes))
        for source, is_unit in sorted(included, key=itemgetter(1)):
            if is_unit:
                self._units[source.path] = []
                self._add_unit(source.path, source.path, 1)
            self._add(source)
        self._reading.unit = ""
        return service.make_settings(section, fields)

    def _value(self, name: str, section: Section, read: Callable[[str, Section], T]) -> T:
        """Take over what a section was read as, or read it."""
        reading, cached = self._reading, self._cached.get(id(section))
        outer = reading.unit, reading.section
        reading.unit, reading.section = self._unit_of(section), section
        if cached is None or not self._holds(cached):
            needs, reading.needs = reading.needs, []
            value = read(name, section)
            cached, reading.needs = _Value(value, reading.ordered_needs()), needs
            self._changed.append(value)
        reading.unit, reading.section = outer
        self._values[id(section)] = cached
        found: T = cached.value
        return found

    def _holds(self, cached: _Value) -> bool:
        reading = self._reading
        try:
            return all(read(reading, text) is found for read, text, found in cached.needs)
        except InvalidValueError:
            return False

    def _read_backend(self, name: str, section: Section) -> Backend:
        fields = self._read("backend", name, section)
        self._problems += wrong_transport(section, "backend")
        self._problems += backend.contradictions(section, fields, self._reading.server)
        usual = {"resolvers": self._reading.settings.resolvers}
        fields["is_of_unit"] = "tls" in section.entries and self._is_of_unit(section)
        fields["author"] = self._reading.other_author
        made = backend.make_backend(name, section, {**usual, **fields})
        proxy = made.proxy
        if proxy is None or proxy.password is None or not self._is_of_unit(section):
            return made
        lacking = attrs.evolve(proxy, may_lack=True)  # type: ignore[misc] # an attrs class of a feature
        return attrs.evolve(made, more={**made.more, proxy.key: lacking})

    def _backend_called(self, name: str) -> Backend | None:
        if name in self._begun:
            way = " -> ".join((*self._begun[self._begun.index(name) :], name))
            raise InvalidValueError(f"is a circle: {way}; give one of them another fallback")
        if len(self._begun) + _fallback_depth(self._backends.get(name)) >= _LONGEST_WAY:
            message = f"is too long a chain: over {_LONGEST_WAY} backends, each the fallback of another; remove some"
            raise InvalidValueError(message)
        if name not in self._backends and name in self._sections["backend"]:
            self._begun.append(name)
            first = self._sections["backend"][name][0]
            self._backends[name] = self._value(name, first, self._read_backend)
            self._begun.pop()
        return self._backends.get(name)

    def _placed(self, made: Route) -> Route:
        """Return a route under the listeners that it may be under, if it names none or all."""
        reading, section, under = self._reading, made.section, made.under
        if self._alone or ("under" in section.entries and EVERY not in under):
            return made
        if len(under) > 1:
            message = f"'{EVERY}' means all listeners; remove the names beside it"
            self._problems.append(section.problem(message, "under"))
        find = RulesReading.every_listener if under else RulesReading.usual_listeners
        try:
            found = find(reading, reading.unit, made.is_for)
        except InvalidValueError as error:
            self._problems.append(section.problem(str(error), "under"))
            return attrs.evolve(made, under=())
        if not found:  # as of the operator's, which may be thousands; see `_is_like`
            return attrs.evolve(made, under=()) if made.under else made
        reading.needs.append((find, reading.unit, found))
        over = reading.transports_of((reading.unit, found))
        reading.needs.append((RulesReading.transports_of, (reading.unit, found), over))
        # Of all, it is under those of its transport; if there are none, that is an error.
        fitting = (name for name, its in zip(found, over, strict=True) if made.is_for(its))
        return attrs.evolve(made, under=(under and tuple(fitting)) or found)

    def _read_listener(self, name: str, section: Section) -> Listener:
        fields = self._read("listen", name, section)
        self._problems += wrong_transport(section, "listen")
        is_of_unit = self._is_of_unit(section)
        return listener.make_listener(name, section, {**fields, "is_of_unit": is_of_unit})

    def _read_route(self, name: str, section: Section) -> Route:
        fields = self._read("route", name, section)
        self._problems += route.contradictions(section, fields)
        fields["is_of_unit"] = "terminate_tls" in section.entries and self._is_of_unit(section)
        fields["author"] = self._reading.other_author
        made = route.make_route(name, section, fields, self._reading.settings)
        if made.takes_silent:
            made = attrs.evolve(made, is_of_unit=self._is_of_unit(section))
        return self._placed(made)

    def _is_of_unit(self, section: Section) -> bool:
        is_of_unit = self._reading.is_owned(section)
        self._reading.needs.append((RulesReading.is_owned, section, is_of_unit))
        return is_of_unit

    def _read(self, kind: str, name: str, section: Section) -> dict[str, Any]:
        # The outcome of a section may be a backend that is read in between, from another folder.
        outer, self._reading.folder = self._reading.folder, _folder_of(section.path)
        fields = read_keys(section, kind, self._reading)
        self._reading.folder = outer
        # What a second section of the same name has not, it may have in the first.
        if section is self._sections[kind][name][0]:
            self._problems += missing_keys(section, kind, self._reading)
        for find in CONTRADICTIONS[kind]:
            self._problems += find(section, fields)
        return fields


def _are_same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(map(is_, some, others))


@lru_cache(1)
def _folder_of(path: str) -> Path:
    return Path(path).parent


def _fallback_depth(outcome: Outcome | None) -> int:
    return 1 + _fallback_depth(outcome.fallback) if isinstance(outcome, Backend) else 0

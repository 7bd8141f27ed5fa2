"""From the text of a rules file to `Rules`, or to all that is wrong in it."""

import itertools
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import attrs

from txmux.detection.registry import installed_matchers
from txmux.files import within_patience
from txmux.interfaces import IProtocolMatcher
from txmux.rules.collecting import uncollected
from txmux.rules.model import Backend, Files, Listener, Outcome, Route, Rules, Section, Settings
from txmux.rules.problems import InvalidValueError, Problem, RulesError, nearest
from txmux.rules.reading import backend, listener, route, service, tunnels
from txmux.rules.reading.conflicts import (
    conflicts,
    loops,
    misplaced,
    unknown_certificates,
    unshareable,
    wrong_transports,
)
from txmux.rules.reading.context import REFUSALS, OnDisk, RulesReading, finding
from txmux.rules.reading.endpoints import missing_files
from txmux.rules.reading.files import (
    FileReader,
    SourceFile,
    check_file,
    expand_section,
    read_source,
    source_of,
)
from txmux.rules.reading.hints import KEY_HINTS, SECTION_ALIASES, foreign_format, kind_of_server
from txmux.rules.reading.ini import read_ini
from txmux.rules.reading.sections import HEADERS, TABLES, missing_keys, read_keys, wrong_transport
from txmux.rules.reading.values import NAME

_LONGEST_WAY = 20
_DOTTED = re.compile(r"([a-z]+)[.:/]([\w.-]+)")
_KEYS = {
    kind: dict.fromkeys(KEY_HINTS[kind], "") | {name: key.example for name, key in keys.items()}
    for kind, keys in TABLES.items()
}


def load(
    path: Path | str,
    matchers: Mapping[str, IProtocolMatcher] | None = None,
    data: bytes | None = None,
    *,
    are_pem_files_there: bool = True,
) -> Rules:
    """Read a rules file and all that it includes.

    Args:
        path: The file.
        matchers: The matchers by name; by default those that are installed.
        data: What is in it, if that has been read already.
        are_pem_files_there: Whether missing files for TLS are errors. A service that runs may have what was in them.

    Raises:
        RulesError: All that is wrong, also a file that cannot be read.
    """
    try:
        source = read_source(path) if data is None else source_of(path, data)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise RulesError([Problem(str(path), 0, "", "", message)]) from None
    on_disk: OnDisk = "all" if are_pem_files_there else "all but PEM"
    if matchers is None:
        matchers = installed_matchers()
    last = _last  # a thread may read others meanwhile
    if last is not None and last.is_still_so(source, matchers):
        return last.rules
    return _remembered(_RulesParser(source, matchers, on_disk=on_disk))


def load_within_patience(path: Path | str, *arguments: Any, **options: Any) -> Rules:
    """Call `load` in a process without a reactor; a disk that does not answer is an error, too."""
    try:
        return within_patience(partial(load, path, *arguments, **options))
    except TimeoutError as error:
        message = f"cannot be read: {error.strerror}"
        raise RulesError([Problem(str(error.filename), 0, "", "", message)]) from None


def parse(
    text: str, path: Path | str, matchers: Mapping[str, IProtocolMatcher] | None = None
) -> Rules:
    """Read rules from a text.

    Args:
        text: What a rules file holds.
        path: Its name in messages; files that it includes, or takes networks from, are looked for beside it. Of
            other files only the paths are read.
        matchers: The matchers by name; by default those that are installed.

    Raises:
        RulesError: All that is wrong.
    """
    return _RulesParser(SourceFile(str(path), text), matchers).rules()


@attrs.frozen
class Draft:
    """What rules would be with a file that is not written yet.

    Attributes:
        rules: ``None`` if they would have errors.
        is_included: Whether the rules include that file.
    """

    rules: Rules | None
    problems: tuple[Problem, ...]
    is_included: bool


def try_draft(path: Path, draft: SourceFile) -> Draft:
    """Read a rules file with a draft in the place of a file that it includes; `OSError` if it cannot be read."""
    parser = _RulesParser(read_source(path), None, draft=draft)
    rules: Rules | None = None
    problems: tuple[Problem, ...] = ()
    try:
        rules = parser.rules()
    except RulesError as error:
        problems = error.problems
    return Draft(rules, problems, draft.path in parser._files.files().texts)


def read_again(files: Files) -> Rules:
    """Read rules from what was in their files, as another process does."""
    last = _last
    if (
        last is not None
        and last.is_installed
        and _comparable(last.rules.files) == _comparable(files)
    ):
        return last.rules
    path, text = next(iter(files.texts.items()))
    return _remembered(_RulesParser(SourceFile(path, text), None, known=files))


@attrs.frozen
class _LastRules:
    """The rules that were read last, so that the same text is not parsed again.

    Attributes:
        checked: The files that were found to be there, each with what it is; ``None`` if none was looked for.
    """

    rules: Rules
    matchers: Mapping[str, IProtocolMatcher]
    checked: Mapping[Path, str] | None

    @property
    def is_installed(self) -> bool:
        """Whether other processes have its matchers, too."""
        return self.matchers is installed_matchers()

    def is_still_so(self, main: SourceFile, matchers: Mapping[str, IProtocolMatcher]) -> bool:
        """Return whether reading all files again would come to the same rules."""
        rules, files, settings = self.rules, self.rules.files, self.rules.settings
        read = service.KEYS["workers"].kind.read
        if self.checked is None or matchers is not self.matchers or main.path != str(rules.path):
            return False
        now = FileReader(main)
        try:
            sources = [main, *(one for pattern in files.included for one in now.include(pattern))]
            for name in files.texts:
                now.text(Path(name))
            for path, what in self.checked.items():
                check_file(path, what)
        except (OSError, ValueError, InvalidValueError):
            return False
        for name in files.variables:
            now.variable(name)
        return (
            _comparable(now.files()) == _comparable(files)
            and not any(source.problems for source in sources)
            and not any(missing_files(rules.sections))
            # As many as there are processors now, with `auto`.
            and all(
                read(item.text) == settings.workers for item in settings.section.items("workers")
            )
        )


_last: _LastRules | None = None


def _remembered(parser: "_RulesParser") -> Rules:
    global _last  # noqa: PLW0603 - it is about the process
    reading, checked = parser._reading, parser._reading.checked if parser._on_disk else None
    _last = _LastRules(rules := parser.rules(), reading.matchers, checked)
    return rules


def _comparable(files: Files) -> object:
    included = {item: [*paths] for item, paths in files.included.items()}
    return files.texts, included, files.variables


def errors_alone(
    source: SourceFile, matchers: Mapping[str, IProtocolMatcher] | None = None
) -> tuple[Problem, ...]:
    """Find the errors of a file that do not depend on other files, since another file may include it.

    No other file is read, variables of the environment neither; names are taken to be somewhere.
    """
    try:
        _RulesParser(source, matchers, alone=True).rules()
    except RulesError as error:
        return error.problems
    return ()


def is_as_read(rules: Rules) -> bool:
    last = _last
    if last is not None and rules is last.rules and last.is_installed:
        return True
    try:
        return bool(rules.files.texts) and _outline(read_again(rules.files)) == _outline(rules)
    except RulesError:
        return False


def _outline(rules: Rules) -> object:
    """Return what can be compared; predicates cannot."""
    routes = [
        (attrs.evolve(route, alternatives=()), [line.text for line in route.alternatives])
        for route in rules.routes
    ]
    return attrs.evolve(rules, routes=()), routes


class _RulesParser:
    def __init__(
        self,
        main: SourceFile,
        matchers: Mapping[str, IProtocolMatcher] | None,
        *,
        known: Files | None = None,
        draft: SourceFile | None = None,
        on_disk: OnDisk = "",
        alone: bool = False,
    ) -> None:
        self._path = main.path
        self._alone, self._on_disk = alone, on_disk
        self._files = FileReader(main, known, draft)
        if matchers is None:
            matchers = installed_matchers()
        self._reading = RulesReading(
            self._files, matchers, self._backend_called, on_disk=on_disk, alone=alone
        )
        self._problems = self._reading.problems
        self._not_text: list[Problem] = []
        self._sections = self._reading.sections
        self._sections.update((kind, {}) for kind in HEADERS)
        self._backends: dict[str, Backend] = {}
        # Backends that are being read, each the fallback of the one before.
        self._begun: list[str] = []
        self._add(main)

    def rules(self) -> Rules:
        try:
            with uncollected():
                return self._rules()
        finally:
            # The two refer to each other: all that was read would stay until a garbage collection.
            del self._reading

    def _rules(self) -> Rules:
        settings = self._settings()
        self._reading.settings = settings
        # Outcomes name backends, so these are read first.
        for name, section in self._named("backend"):
            if section is self._sections["backend"][name][0]:
                self._backend_called(name)
            else:
                self._backend(name, section)
        listeners = tuple(self._listener(*named) for named in self._named("listen"))
        routes = tuple(self._route(*named) for named in self._named("route"))
        self._problems += route.circles(routes)
        self._problems += loops(listeners, routes)
        self._problems += wrong_transports(listeners, routes)
        self._problems += misplaced(listeners, routes, settings.relay)
        self._problems += () if self._alone else unknown_certificates(routes)
        self._problems += () if self._alone else tunnels.open_tunnels(listeners, routes)
        opened = [same[0] for same in self._sections["listen"].values()]
        own = [same[0] for same in self._sections["txmux"].values()]
        self._problems += conflicts([*opened, *own])
        self._problems += unshareable(opened, settings)
        for kind in self._sections if self._on_disk else ():
            self._problems += missing_files(section for _, section in self._named(kind))
        if not (self._sections["listen"] or self._not_text or self._alone):
            missing = "there is no [listen NAME] section"
            message = f"{missing}; add 'endpoint = :443' in a [listen NAME]"
            self._problems.append(Problem(self._path, 1, "", "", message))
        files = self._files.files()
        not_text = {(problem.path, problem.line) for problem in self._not_text}
        problems = [p for p in self._problems if (p.path, p.line) not in not_text] + self._not_text
        if problems:
            order = {path: number for number, path in enumerate(files.texts)}
            raise RulesError(sorted(problems, key=lambda p: (order[p.path], p.line)))
        backends = {name: self._backends[name] for name in self._sections["backend"]}
        return Rules(Path(self._path), settings, listeners, routes, backends, files)

    def _add(self, source: SourceFile) -> None:
        sections, problems = read_ini(source.text, source.path, _KEYS)
        self._not_text += source.problems
        is_ours = any(section.header.split()[0] in HEADERS for section in sections)
        other = foreign_format(source.text) if problems or not is_ours else ""
        if other:
            # All its lines would be errors, and missing keys, too.
            self._not_text.append(Problem(source.path, 1, "", "", other))
            return
        self._problems += problems
        for written in sections:
            variable = None if self._alone else self._files.variable
            section, problems = expand_section(written, variable)
            self._problems += problems
            word, blank, name = section.header.partition(" ")
            dotted = None if blank else _DOTTED.fullmatch(word)
            if dotted and {dotted[1]} & {*HEADERS, *SECTION_ALIASES}:
                word, name = dotted.groups()
            # A misspelt section is read as what it is meant to be, so that it is not reported as missing, too.
            kind = _meant(word)
            if word.casefold() in self._reading.matchers and not kind:
                kind, name = "route", word
            if word.casefold() == "server":
                kind = kind_of_server(section.entries)
            if dotted and name:
                message = f"a blank is between the words of a header; write [{kind} {name}]"
            elif kind == word:
                message = self._header_message(kind, name)
            else:
                full = f"[{kind} {name}]" if NAME.fullmatch(name) else HEADERS.get(kind, "")
                hint = (
                    f"; did you mean {HEADERS[kind] if kind == 'txmux' else full}?" if kind else ""
                )
                there_are = ", ".join(HEADERS.values())
                message = f"unknown section{hint} (there are {there_are})"
            if message:
                self._problems.append(section.problem(message))
            if kind:
                self._sections[kind].setdefault(name, []).append(section)

    def _header_message(self, kind: str, name: str) -> str:
        if kind == "txmux":
            message = "takes no name; write [txmux]" if name else ""
        elif not name:
            message = f"needs a name; write {HEADERS[kind]}"
        elif not NAME.fullmatch(name):
            plain = "-".join(name.strip("'\"").split())
            hint = f"; did you mean [{kind} {plain}]?" if NAME.fullmatch(plain) else ""
            message = f"{name!r} is not a name; use letters, digits, '.', '_' and '-' only{hint}"
        elif kind == "backend" and name in REFUSALS:
            message = f"{name!r} means to refuse the client; give the backend another name"
        else:
            message = ""
        others = self._sections[kind].get(name)
        if others and not message:
            there = f"{others[0].path}:{others[0].line}"
            advice = "give one another name" if name else "put all its keys there"
            message = f"is already at {there}; {advice}"
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
        fields = self._read("txmux", name, section)
        self._problems += service.contradictions(section, fields)
        for source in itertools.chain.from_iterable(fields.get("include", ())):
            self._add(source)
        return service.make_settings(section, fields)

    def _backend(self, name: str, section: Section) -> Backend:
        fields = self._read("backend", name, section)
        self._problems += wrong_transport(section, "backend")
        self._problems += backend.contradictions(section, fields)
        return backend.make_backend(
            name, section, {**finding(fields.get("servers", ()), self._reading.settings), **fields}
        )

    def _backend_called(self, name: str) -> Backend | None:
        if name in self._begun:
            way = " -> ".join((*self._begun[self._begun.index(name) :], name))
            raise InvalidValueError(f"is a circle: {way}; give one of them another fallback")
        if len(self._begun) + _fallback_depth(self._backends.get(name)) >= _LONGEST_WAY:
            raise InvalidValueError(
                f"is too long a chain: over {_LONGEST_WAY} backends, each the fallback of another; remove some"
            )
        if name not in self._backends and name in self._sections["backend"]:
            self._begun.append(name)
            self._backends[name] = self._backend(name, self._sections["backend"][name][0])
            self._begun.pop()
        return self._backends.get(name)

    def _listener(self, name: str, section: Section) -> Listener:
        fields = self._read("listen", name, section)
        self._problems += wrong_transport(section, "listen")
        self._problems += listener.contradictions(section, fields)
        return listener.make_listener(name, section, fields)

    def _route(self, name: str, section: Section) -> Route:
        fields = self._read("route", name, section)
        self._problems += route.contradictions(section, fields)
        self._problems += tunnels.contradictions(section)
        return route.make_route(name, section, fields, self._reading.settings)

    def _read(self, kind: str, name: str, section: Section) -> dict[str, Any]:
        # The outcome of a section may be a backend that is read in between, from another folder.
        outer, self._reading.folder = self._reading.folder, _folder_of(section.path)
        fields = read_keys(section, kind, self._reading)
        self._reading.folder = outer
        # What a second section of the same name has not, it may have in the first.
        if section is self._sections[kind][name][0]:
            self._problems += missing_keys(section, kind)
        return fields


@lru_cache(1)
def _folder_of(path: str) -> Path:
    return Path(path).parent


def _fallback_depth(outcome: Outcome | None) -> int:
    return 1 + _fallback_depth(outcome.fallback) if isinstance(outcome, Backend) else 0


def _meant(word: str) -> str:
    """Return the kind of section that the first word of a header means, or nothing."""
    if word in HEADERS:
        return word
    begun = (kind for kind in HEADERS if word.casefold().startswith(kind))
    meant = SECTION_ALIASES.get(word.casefold())
    return meant or nearest(word, HEADERS) or next(begun, "")

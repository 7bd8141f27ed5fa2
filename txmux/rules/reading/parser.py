"""From the text of a rules file to `Rules`, or to all that is wrong in it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from txmux.detection.registry import installed_matchers
from txmux.rules.model import Backend, Clients, Listener, Refusal, Rules, Settings
from txmux.rules.problems import (
    InvalidValueError,
    Problem,
    RulesError,
    did_you_mean,
    joined,
    nearest,
    suggestion,
    with_advice,
)
from txmux.rules.reading import endpoints, keys
from txmux.rules.reading.backends import contradictions, make_backend
from txmux.rules.reading.conflicts import conflicts
from txmux.rules.reading.files import FileReader, Source, read_source
from txmux.rules.reading.ini import read_ini
from txmux.rules.reading.matching import read_alternative
from txmux.rules.reading.paths import Paths
from txmux.rules.reading.routes import circles, make_route, without_tls
from txmux.rules.reading.values import NAME, split_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from txmux.interfaces import IProtocolMatcher
    from txmux.rules.model import Alternative, Files, Outcome, Route, Section

__all__ = ["is_as_read", "load", "parse", "read_again"]

_LONGEST_WAY = 20
_REFUSALS = {refusal.value: refusal for refusal in Refusal}


def load(path: Path | str, matchers: Mapping[str, IProtocolMatcher] | None = None) -> Rules:
    """Read a rules file and all that it includes.

    Args:
        path: The file.
        matchers: The matchers by name; by default those that are installed.

    Raises:
        RulesError: All that is wrong, also a file that cannot be read.
    """
    try:
        source = read_source(path)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise RulesError([Problem(str(path), 0, "", "", message)]) from None
    return _Parser(source, matchers, on_disk=True).rules()


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
    return _Parser(Source(str(path), text), matchers).rules()


def read_again(files: Files) -> Rules:
    """Read rules from what was in their files, as another process does.

    Args:
        files: Those of the rules; not empty.

    Raises:
        RulesError: All that is wrong.
    """
    path, text = next(iter(files.texts.items()))
    return _Parser(Source(path, text), None, known=files).rules()


def is_as_read(rules: Rules) -> bool:
    """Tell whether rules are what their files say: nothing of them was made or changed in Python."""
    try:
        return bool(rules.files.texts) and _outline(read_again(rules.files)) == _outline(rules)
    except RulesError:
        return False


def _outline(rules: Rules) -> object:
    """Give what can be compared; predicates cannot."""
    routes = [
        (attrs.evolve(route, alternatives=()), [line.text for line in route.alternatives])
        for route in rules.routes
    ]
    return attrs.evolve(rules, routes=()), routes


class _Parser:
    def __init__(
        self,
        main: Source,
        matchers: Mapping[str, IProtocolMatcher] | None,
        *,
        known: Files | None = None,
        on_disk: bool = False,
    ) -> None:
        self._path = main.path
        self._files = FileReader(main, known)
        self._paths = Paths(main.path, self._files, on_disk=on_disk)
        self._matchers = installed_matchers() if matchers is None else matchers
        self._problems: list[Problem] = []
        self._not_text: list[Problem] = []
        self._sections: dict[str, dict[str, list[Section]]] = {kind: {} for kind in keys.HEADERS}
        self._backends: dict[str, Backend] = {}
        # Backends that are being read, each the fallback of the one before.
        self._begun: list[str] = []
        self._tables = {
            "txmux": keys.settings_keys(self._paths.access_log, self._files.include),
            "listen": keys.listener_keys(self._outcome, self._paths.networks),
            "route": keys.route_keys(
                self._alternative,
                self._outcome,
                self._place_name,
                self._paths.networks,
                self._paths.pem,
            ),
            "backend": keys.backend_keys(self._paths.pem, self._outcome),
        }
        self._add(main)

    def rules(self) -> Rules:
        settings = self._settings()
        # Outcomes name backends, so these are read first.
        for name, section in self._named("backend"):
            if section is self._sections["backend"][name][0]:
                self._backend_called(name)
            else:
                self._backend(name, section)
        listeners = tuple(self._listener(*named) for named in self._named("listen"))
        routes = tuple(self._route(*named) for named in self._named("route"))
        first = {name: same[0] for name, same in self._sections["route"].items()}
        self._problems += circles(routes, first)
        self._problems += conflicts(same[0] for same in self._sections["listen"].values())
        if not self._sections["listen"] and not self._not_text:
            message = (
                "there is no [listen NAME] section; add one, with 'endpoint = :443' for example"
            )
            self._problems.append(Problem(self._path, 1, "", "", message))
        not_text = {(problem.path, problem.line) for problem in self._not_text}
        found = [*self._problems, *self._paths.problems]
        problems = [p for p in found if (p.path, p.line) not in not_text] + self._not_text
        if problems:
            order = {path: number for number, path in enumerate(self._files.files().texts)}
            raise RulesError(sorted(problems, key=lambda p: (order[p.path], p.line)))
        return Rules(
            Path(self._path),
            settings,
            listeners,
            routes,
            {name: self._backends[name] for name in self._sections["backend"]},
            self._files.files(),
        )

    def _add(self, source: Source) -> None:
        sections, problems = read_ini(source.text, source.path)
        self._not_text += source.problems
        self._problems += problems
        for section in sections:
            word, _, name = section.header.partition(" ")
            # A misspelt section is read as what it is meant to be, lest its absence be told too.
            kind = _meant(word)
            if kind == word:
                message = self._header_message(kind, name)
            else:
                hint = f"; did you mean {kind!r}?" if kind else ""
                there_are = ", ".join(keys.HEADERS.values())
                message = f"unknown section{hint} (there are {there_are})"
            if message:
                self._problems.append(section.problem(message))
            if kind:
                self._sections[kind].setdefault(name, []).append(section)

    def _header_message(self, kind: str, name: str) -> str:
        if kind == "txmux":
            message = "takes no name; write [txmux]" if name else ""
        elif not name:
            message = f"needs a name; write {keys.HEADERS[kind]}"
        elif not NAME.fullmatch(name):
            message = f"{name!r} is no name; use letters, digits, '.', '_' and '-' only"
        elif kind == "backend" and name in _REFUSALS:
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
        found = self._read("txmux", name, section)
        if "group" in section.entries and "user" not in section.entries:
            message = "needs 'user' beside it; add that, or remove this"
            self._problems.append(section.problem(message, "group"))
        for source in itertools.chain.from_iterable(found.pop("include", ())):
            self._add(source)
        return Settings(section=section, **found)

    def _backend(self, name: str, section: Section) -> Backend:
        found = self._read("backend", name, section)
        self._problems += contradictions(section, found)
        return make_backend(name, section, found)

    def _backend_called(self, name: str) -> Backend | None:
        """Give the backend of a name, which is read now if it is another one's fallback."""
        if name in self._begun:
            way = " -> ".join((*self._begun[self._begun.index(name) :], name))
            raise InvalidValueError(f"leads in a circle: {way}; lead one of them elsewhere")
        if len(self._begun) + _way(self._backends.get(name)) >= _LONGEST_WAY:
            raise InvalidValueError(
                f"leads on and on: over {_LONGEST_WAY} backends, each the fallback of another; take some away"
            )
        if name not in self._backends and name in self._sections["backend"]:
            self._begun.append(name)
            self._backends[name] = self._backend(name, self._sections["backend"][name][0])
            self._begun.pop()
        return self._backends.get(name)

    def _listener(self, name: str, section: Section) -> Listener:
        found = self._read("listen", name, section)
        clients = Clients(found.pop("allow", None), found.pop("deny", None))
        return Listener(name, clients=clients, section=section, **found)

    def _route(self, name: str, section: Section) -> Route:
        found = self._read("route", name, section)
        self._problems += without_tls(section)
        return make_route(name, section, found)

    def _read(self, kind: str, name: str, section: Section) -> dict[str, Any]:
        # The outcome of a section may be a backend that is read in between, from another folder.
        outer, self._paths.folder = self._paths.folder, Path(section.path).parent
        found = keys.read_keys(section, kind, self._tables, self._problems)
        self._paths.folder = outer
        # What a second section of the same name has not, it may have in the first.
        if section is self._sections[kind][name][0]:
            self._problems += keys.missing_keys(section, kind, self._tables[kind])
        return found

    def _alternative(self, text: str) -> Alternative:
        return read_alternative(text, self._matchers)

    def _place_name(self, text: str) -> str:
        listeners, routes = self._sections["listen"], self._sections["route"]
        over = [name for name, same in routes.items() if "terminate_tls" in same[0].entries]
        if text in listeners and text in over:
            raise InvalidValueError(
                f"{text!r} is a listener, and a route that ends TLS, too; give one of the two another name"
            )
        if text in listeners or text in over:
            return text
        if text in routes:
            raise InvalidValueError(
                f"[route {text}] ends no TLS, so nothing is inside of it; add 'terminate_tls' there, or name a listener"
            )
        hint = suggestion(text, [*listeners, *over])
        raise InvalidValueError(f"there is no [listen {text}] and no [route {text}]{hint}")

    def _outcome(self, text: str) -> Outcome:
        refusal = _REFUSALS.get(text)
        if refusal is not None:
            return refusal
        backend = self._backend_called(text)
        if backend is not None:
            return backend
        if NAME.fullmatch(text) and not text.replace(".", "").isdigit():
            hint = did_you_mean(text, (*self._sections["backend"], *_REFUSALS))
            advice = (
                f"write the name of a backend, HOST:PORT, unix:/path, {joined(list(_REFUSALS))}"
            )
            raise InvalidValueError(with_advice(f"there is no [backend {text}]{hint}", advice))
        server = endpoints.server(text)
        if len(split_words(text)) > 1:
            raise InvalidValueError(
                f"{text!r}: options of a server need a [backend]; write one with this server, and its name here"
            )
        return Backend(text, (server,))


def _way(outcome: Outcome | None) -> int:
    """Count the backends that lead on to one another from here."""
    return 1 + _way(outcome.fallback) if isinstance(outcome, Backend) else 0


def _meant(word: str) -> str:
    """Give the kind of section that the first word of a header means, or nothing."""
    if word in keys.HEADERS:
        return word
    begun = (kind for kind in keys.HEADERS if word.casefold().startswith(kind))
    return nearest(word, keys.HEADERS) or next(begun, "")

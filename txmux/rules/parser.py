"""From the text of a rules file to `Rules`, or to all that is wrong in it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from txmux.detection.registry import installed_matchers
from txmux.rules import endpoints, keys
from txmux.rules.files import Includer, Source, read_source
from txmux.rules.ini import read_ini
from txmux.rules.matching import read_alternative
from txmux.rules.model import Backend, Listener, Refusal, Route, Rules, Settings
from txmux.rules.problems import InvalidValueError, Problem, RulesError, did_you_mean, nearest
from txmux.rules.values import NAME, file_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from txmux.interfaces import IProtocolMatcher
    from txmux.rules.ini import Section
    from txmux.rules.keys import Key
    from txmux.rules.model import Alternative, Outcome

__all__ = ["load", "parse"]

_KINDS = {
    "txmux": "[txmux]",
    "listen": "[listen NAME]",
    "route": "[route NAME]",
    "backend": "[backend NAME]",
}
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
    return _Parser(source, matchers).rules()


def parse(
    text: str, path: Path | str, matchers: Mapping[str, IProtocolMatcher] | None = None
) -> Rules:
    """Read rules from a text.

    Args:
        text: What a rules file holds.
        path: Its name in messages; other files are looked for beside it.
        matchers: The matchers by name; by default those that are installed.

    Raises:
        RulesError: All that is wrong.
    """
    return _Parser(Source(str(path), text), matchers).rules()


class _Parser:
    def __init__(self, main: Source, matchers: Mapping[str, IProtocolMatcher] | None) -> None:
        self._path = main.path
        self._matchers = installed_matchers() if matchers is None else matchers
        self._problems: list[Problem] = []
        self._files: list[str] = []
        self._sections: dict[str, dict[str, list[Section]]] = {kind: {} for kind in _KINDS}
        self._meant: set[str | None] = set()
        self._backends: dict[str, Backend] = {}
        self._listener_keys = keys.listener_keys(self._outcome)
        self._route_keys = keys.route_keys(self._alternative, self._outcome, self._listener_name)
        self._add(main)

    def rules(self) -> Rules:
        settings = self._settings()
        # Outcomes name backends, so these are read first.
        for name, section in self._named("backend"):
            self._backends.setdefault(name, self._backend(name, section))
        listeners = tuple(self._listener(*named) for named in self._named("listen"))
        routes = tuple(self._route(*named) for named in self._named("route"))
        if "listen" not in self._meant:
            message = (
                "there is no [listen NAME] section; add one, with 'endpoint = :443' for example"
            )
            self._problems.append(Problem(self._path, 1, "", "", message))
        if self._problems:
            order = {path: number for number, path in enumerate(self._files)}
            raise RulesError(sorted(self._problems, key=lambda p: (order[p.path], p.line)))
        return Rules(Path(self._path), settings, listeners, routes, self._backends)

    def _add(self, source: Source) -> None:
        self._files.append(source.path)
        sections, problems = read_ini(source.text, source.path)
        self._problems += [*source.problems, *problems]
        for section in sections:
            kind, _, name = section.header.partition(" ")
            self._meant.add(kind if kind in _KINDS else nearest(kind, _KINDS))
            message = self._header_message(kind, name)
            if message:
                self._problems.append(section.problem(message))
            if kind in _KINDS:
                self._sections[kind].setdefault(name, []).append(section)

    def _header_message(self, kind: str, name: str) -> str:
        if kind not in _KINDS:
            there_are = ", ".join(_KINDS.values())
            return f"unknown section{did_you_mean(kind, _KINDS)} (there are {there_are})"
        if kind == "txmux":
            message = "takes no name; write [txmux]" if name else ""
        elif not name:
            message = f"needs a name; write {_KINDS[kind]}"
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
        _, section = next(self._named("txmux"), ("", None))
        if section is None:
            return Settings()
        table = keys.settings_keys(self._access_log, Includer(self._path))
        found = self._read(section, "txmux", table)
        for source in itertools.chain.from_iterable(found.pop("include", ())):
            self._add(source)
        return Settings(**found)

    # Where something required is missing, a stand-in lets the rest be checked: the rules are never handed out.

    def _backend(self, name: str, section: Section) -> Backend:
        found = self._read(section, "backend", keys.BACKEND_KEYS)
        return Backend(name, **{"servers": (), **found})

    def _listener(self, name: str, section: Section) -> Listener:
        return Listener(name, **self._read(section, "listen", self._listener_keys))

    def _route(self, name: str, section: Section) -> Route:
        found = self._read(section, "route", self._route_keys)
        return Route(name, **{"alternatives": (), "outcome": Refusal.CLOSE, **found})

    def _read(self, section: Section, kind: str, table: Mapping[str, Key]) -> dict[str, Any]:
        return keys.read_keys(section, kind, table, self._problems)

    def _access_log(self, text: str) -> Path | Literal["-"] | None:
        if text == "-":
            return "-"
        return None if text == "off" else Path(self._path).parent / file_path(text)

    def _alternative(self, text: str) -> Alternative:
        return read_alternative(text, self._matchers)

    def _listener_name(self, text: str) -> str:
        if text in self._sections["listen"]:
            return text
        if text in self._sections["route"]:
            raise InvalidValueError(f"{text!r} is a route; only listeners are supported yet")
        hint = did_you_mean(text, self._sections["listen"])
        raise InvalidValueError(f"there is no [listen {text}]{hint}")

    def _outcome(self, text: str) -> Outcome:
        refusal = _REFUSALS.get(text)
        if refusal is not None:
            return refusal
        backend = self._backends.get(text)
        if backend is not None:
            return backend
        if NAME.fullmatch(text) and not text.replace(".", "").isdigit():
            hint = did_you_mean(text, (*self._backends, *_REFUSALS))
            raise InvalidValueError(
                f"there is no [backend {text}]{hint}; write the name of a backend, HOST:PORT, "
                "unix:/path, close or reset"
            )
        return Backend(text, (endpoints.server(text),))

"""The installed matchers: those of ``txmux.matchers`` and those that Twisted's plugin system finds."""

from __future__ import annotations

import importlib
import pickle  # nosec B403 - it reads only what Twisted has cached in folders of programs
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
from twisted import plugin as plugin_finder
from twisted import plugins
from twisted.plugin import CachedPlugin, getCache
from twisted.python.modules import getModule
from zope.interface import Interface
from zope.interface.interface import InterfaceClass

from txmux.classes import frozen
from txmux.errors import MuxError
from txmux.interfaces import Datagrams, IProtocolMatcher, Option, Predicate, Transport, Verdict

_ALL = frozenset(Transport)
_TCP_ONLY = frozenset({Transport.TCP})


def transports_of(matcher: IProtocolMatcher) -> frozenset[Transport]:
    """Return the transports that a matcher declares, or raise `TypeError`; without a declaration it is for TCP."""
    declared = getattr(matcher, "transports", _TCP_ONLY)
    transports = frozenset(declared)
    if not transports or not transports <= _ALL:
        raise TypeError(f"its 'transports' is {declared!r}, not a collection of Transport")
    return transports


def datagram_predicate(
    matcher: IProtocolMatcher, options: Mapping[str, str], predicate: Predicate
) -> Predicate | None:
    """Return the predicate for datagrams, `predicate` being that for streams; ``None`` if the matcher is not for them."""
    transports = transports_of(matcher)
    if Transport.UDP not in transports:
        return None
    own: Any = getattr(matcher, "datagram_predicate", None)
    if own is not None:
        made: Predicate = own(options)
        return made
    return WholeDatagram(predicate) if Transport.TCP in transports else predicate


@frozen
class WholeDatagram:
    """Asks a predicate for streams about the first datagram: what is undecided is a no, as nothing will be added."""

    of: Predicate
    longest: int = attrs.field(default=1, init=False)

    def __getattr__(self, name: str) -> Any:
        if name in {"first_bytes", "key", "learnt"}:  # as for streams
            return getattr(self.of, name, None)
        raise AttributeError(name)

    def __call__(self, peeked: Datagrams, /) -> Verdict:
        verdict = self.of(peeked)
        return Verdict.NO if verdict is Verdict.NEED_MORE else verdict


class _BuiltIn:
    """A matcher of ``txmux.matchers``, which is imported on first use: rules name a few of more than ninety.

    Its variable is called as its module; its name has ``-`` in place of ``_``.
    """

    def __init__(self, module: str) -> None:
        self.name = module.replace("_", "-")
        self._module = module

    @cached_property
    def matcher(self) -> IProtocolMatcher:
        module = importlib.import_module(f"txmux.matchers.{self._module}")
        matcher: IProtocolMatcher = getattr(module, self._module)
        return matcher


class UnusableMatcherError(MuxError):
    """A matcher is incomplete, or several plugins claim its name, so that a rules file could mean any of them."""


@frozen
class PluginProblem:
    """A problem of the installed plugins. Its ``str()`` is one line for the user.

    Attributes:
        message: Which plugins in which files of which packages, what is wrong, and what would help.
        name: The matcher that cannot be used.
    """

    message: str
    name: str | None = None

    def __str__(self) -> str:
        return self.message


@frozen
class Registry(Mapping[str, IProtocolMatcher]):
    """Matchers by name, sorted. What is wrong with some plugins does not touch the others.

    Looking up a matcher that cannot be used raises `UnusableMatcherError`; its name is not among the keys.

    Attributes:
        matchers: Those that can be used.
        problems: Warnings for users of this installation.
    """

    matchers: Mapping[str, IProtocolMatcher | _BuiltIn]
    problems: tuple[PluginProblem, ...] = ()

    def __getitem__(self, name: str) -> IProtocolMatcher:
        for problem in self.problems if name not in self.matchers else ():
            if problem.name == name:
                raise UnusableMatcherError(problem.message)
        return _itself(self.matchers[name])

    def __contains__(self, name: object) -> bool:
        return name in self.matchers

    def __iter__(self) -> Iterator[str]:
        return iter(self.matchers)

    def __len__(self) -> int:
        return len(self.matchers)


@frozen
class _FoundMatcher:
    matcher: IProtocolMatcher | _BuiltIn
    file: Path

    def __str__(self) -> str:
        matcher = _itself(self.matcher)
        kind = type(matcher).__qualname__
        return f"{matcher.__module__}.{kind} in {_named_file(self.file)}"


def installed_matchers(package: ModuleType = plugins) -> Registry:
    """Find every matcher; plugins are looked for again when one of their folders has changed.

    Args:
        package: The package whose modules hold the plugins. The matchers of ``txmux.matchers`` are beside those of
            ``twisted.plugins``, the default, only.
    """
    state = [_changed_at(folder) for folder in package.__path__]
    cached = _known.get(package.__name__)
    # A worker's user may lack the permission.
    if cached is None or (cached[0] != state and 0 not in state):
        _known[package.__name__] = cached = state, _find(package)
    return cached[1]


_known: dict[str, tuple[list[int], Registry]] = {}


def _changed_at(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0


def _find(package: ModuleType) -> Registry:
    # Twisted's getPlugins only logs what cannot be imported, so the steps it takes are taken here.
    files = {
        module.name: Path(module.filePath.path)
        for module in getModule(package.__name__).iterModules()
    }
    with _seldom_importing():
        dropins = getCache(package)
    problems = [
        _failed(name, file, error)
        for name, file in files.items()
        if name.rpartition(".")[2] not in dropins and (error := _error_of(name))
    ]
    by_name: dict[str, list[_FoundMatcher]] = defaultdict(list)
    if package is plugins:
        for module in getModule("txmux.matchers").iterModules():
            own = _BuiltIn(module.name.rpartition(".")[2])
            by_name[own.name].append(_FoundMatcher(own, Path(module.filePath.path)))
    for dropin in dropins.values():
        file = files[dropin.moduleName]
        for plugin in filter(_is_matcher, dropin.plugins):
            try:
                matcher = _load(plugin)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
                problems.append(_failed(dropin.moduleName, file, error))
                break
            lacking = tuple(_lacking(matcher))
            if lacking:
                problems.append(_incomplete(matcher.name, file, lacking))
                continue
            others = by_name[matcher.name]
            if all(_itself(other.matcher) is not _itself(matcher) for other in others):
                others.append(_FoundMatcher(matcher, file))
        dropin.plugins.clear()  # they refer to it, and would live until the next garbage collection
    problems += (_claimed(name, claims) for name, claims in by_name.items() if len(claims) > 1)
    usable = {name: claims[0].matcher for name, claims in by_name.items() if len(claims) == 1}
    return Registry(dict(sorted(usable.items())), tuple(problems))


class _Unpickler(pickle.Unpickler):
    """Reads plugins without importing interfaces of Twisted's: no matcher has one, and those of trial import unittest."""

    def find_class(self, module: str, name: str) -> Any:
        is_twisteds = module.startswith("twisted.") and not module.startswith("twisted.plugins.")
        if module in sys.modules or not is_twisteds:
            return super().find_class(module, name)
        return InterfaceClass(name, (Interface,), __module__=module)


def _pickled(dropins: Mapping[str, Any]) -> bytes:
    for plugin in (plugin for dropin in dropins.values() for plugin in dropin.plugins):
        names = ((its.__module__, its.__name__) for its in plugin.provided)
        try:
            plugin.provided = [getattr(importlib.import_module(module), it) for module, it in names]
        except (ImportError, AttributeError):  # it has left Twisted; the next start looks anew
            return pickle.dumps({})
    return pickle.dumps(dropins)


@contextmanager
def _seldom_importing() -> Iterator[None]:
    """Make `getCache` import less, and log no traceback of each module that cannot be imported: a `PluginProblem` says why."""
    module: Any = plugin_finder
    log, pickling = module.log, module.pickle
    module.log = SimpleNamespace(err=lambda *_: None, msg=log.msg)
    module.pickle = SimpleNamespace(load=lambda file: _Unpickler(file).load(), dumps=_pickled)
    try:
        yield
    finally:
        module.log, module.pickle = log, pickling


def _itself(matcher: IProtocolMatcher | _BuiltIn) -> IProtocolMatcher:
    return matcher.matcher if isinstance(matcher, _BuiltIn) else matcher


def _is_matcher(plugin: CachedPlugin) -> bool:
    return any(provided.isOrExtends(IProtocolMatcher) for provided in plugin.provided)


def _load(plugin: CachedPlugin) -> IProtocolMatcher:
    # The plugin's own `load` would try first whether its name is that of a module, in vain and at the cost of two exceptions.
    module = importlib.import_module(plugin.dropin.moduleName)
    matcher: IProtocolMatcher = getattr(module, plugin.name)
    if not isinstance(matcher.name, str):
        raise TypeError(f"a matcher's name is {matcher.name!r}, not a str")
    return matcher


def _lacking(matcher: IProtocolMatcher) -> Iterator[str]:
    """Yield what a matcher lacks, or has in a wrong form."""
    for name, is_right in _NEEDED.items():
        try:
            value = getattr(matcher, name, _MISSING)
            if value is _MISSING:
                yield name
            elif not is_right(value):
                yield f"{name} ({value!r})"
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            yield f"{name} ({type(error).__name__}: {error})"
    try:
        transports_of(matcher)
    except TypeError:
        yield "transports"


def _are_options(value: object) -> bool:
    return isinstance(value, tuple | list) and all(
        isinstance(option, Option)
        and all(isinstance(text, str) for text in (option.name, option.meaning, option.example))
        for option in value
    )


_MISSING = object()
_NEEDED: Mapping[str, Callable[[Any], bool]] = {
    "predicate": callable,
    "summary": lambda value: isinstance(value, str),
    "options": _are_options,
}


def _incomplete(name: str, file: Path, lacking: Iterable[str]) -> PluginProblem:
    return PluginProblem(
        f"the matcher {name!r} in {_named_file(file)} is incomplete (missing or wrong: {', '.join(lacking)}); "
        "rules that use it are refused until it is repaired or uninstalled",
        name,
    )


def _error_of(module: str) -> BaseException | None:
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
        return error
    return None


def _failed(module: str, file: Path, error: BaseException) -> PluginProblem:
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return PluginProblem(
        f"the plugin module {module} in {_named_file(file)} cannot be used: {what}; "
        "matchers in it are missing until it is repaired or uninstalled"
    )


def _claimed(name: str, claims: list[_FoundMatcher]) -> PluginProblem:
    return PluginProblem(
        f"the matcher {name!r} is there {len(claims)} times: {' and '.join(map(str, claims))}; "
        "rules that use it are refused until only one of them is installed",
        name,
    )


def _named_file(file: Path) -> str:
    """Name a file, with the distribution that it was installed with if that is known."""
    from importlib.metadata import distributions  # noqa: PLC0415 - it takes a while, and is needed for problems only

    for distribution in distributions():
        for installed in distribution.files or ():
            if installed.name == file.name and Path(str(installed.locate())) == file:
                return f"{file} ({distribution.metadata['Name']} {distribution.version})"
    return str(file)

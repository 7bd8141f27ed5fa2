"""The files that rules name: which process opens each, and whether it holds a secret; and the modules that rules need, as the rows of their keys say."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

from txmux.classes import frozen
from txmux.files import names_in, open_once
from txmux.rules.installed import STAGES
from txmux.rules.model import Rules, Section
from txmux.rules.model.backend import backends_of
from txmux.rules.model.files import other_author
from txmux.rules.problems import Problem
from txmux.rules.reading import backend, route
from txmux.rules.reading.endpoints import parse_endpoint
from txmux.rules.reading.files import FileRights
from txmux.rules.reading.sections import TABLES
from txmux.rules.reading.values import Opens, SectionKey

_WITHIN = {"route": ("terminate_tls", route.TLS_FIELDS), "backend": ("tls", backend.TLS_FIELDS)}


@frozen
class KeyInUse:
    """A key in a part of the rules, with the files that its value names and the modules that it needs, one of them at least."""

    part: Any
    name: str
    row: SectionKey
    paths: Sequence[Path]
    modules: Sequence[str]


def keys_in_use(rules: Rules) -> Sequence[KeyInUse]:
    """Return them all. The first call looks at each part of the rules: with very many, call it in a thread."""
    return rules.once(keys_in_use, _find)


def needed_modules(rules: Rules) -> Iterable[str]:
    """Return the modules that only some rules need. None may import a reactor: each worker installs its own."""
    always = [stage.maker.partition(":")[0] for stage in STAGES["match"]]
    return dict.fromkeys([*always, *(one for key in keys_in_use(rules) for one in key.modules)])


def _find(rules: Rules) -> Sequence[KeyInUse]:
    parts: list[tuple[str, Iterable[Any]]] = [
        ("txmux", [rules.settings]),
        ("listen", rules.listeners),
        ("route", rules.routes),
        ("backend", rules.every_backend()),
    ]
    return [found for kind, same in parts for found in _found(kind, same)]


def _found(kind: str, parts: Iterable[Any]) -> Iterator[KeyInUse]:
    keys = [
        (name, key, *_holder(kind, name, key))
        for name, key in TABLES[kind].items()
        if key.kind.paths or key.loads
    ]
    fields = [*dict.fromkeys(field for _, _, field, _ in keys)]
    fields_of = attrgetter(fields[0], *fields)  # several at least: of one it makes no tuple
    for part in parts:
        if any(fields_of(part)):  # of thousands of routes, few have one
            for name, key, _, value_of in keys:
                value = value_of(part)
                if not value:
                    continue
                paths = [one for one in key.kind.paths(value) if one] if key.kind.paths else ()
                modules = [*key.loads(value)] if key.loads else ()
                if paths or modules:
                    yield KeyInUse(part, name, key, paths, modules)


def _holder(kind: str, name: str, key: SectionKey) -> tuple[str, Callable[[Any], Any]]:
    """Return the attribute of a part in which the value of a key is, and what finds it there; the attribute may be None."""
    within, fields = _WITHIN.get(kind, ("", {}))
    if name in fields:
        inner = attrgetter(fields[name])
        return within, lambda part: (tls := getattr(part, within)) and inner(tls)
    field = "more" if key.feature else key.field or name
    return field, lambda part: key.value_in(part, name)


_INCLUDE = TABLES["txmux"]["include"]
SUFFIXES = tuple(
    suffix for keys in TABLES.values() for key in keys.values() for suffix in key.files.suffixes
)
"""What the names of files with keys end with, in a folder that a key names."""


def is_key_file(name: str) -> bool:
    return name.endswith(SUFFIXES) and name[0] != "."


@frozen
class NamedFile:
    """A file, or a folder of files, that a key names; `row` says what it is."""

    section: Section
    key: str
    path: Path
    row: SectionKey


def named_files(rules: Rules) -> Iterator[NamedFile]:
    """Yield the files of all keys, and those with the text of the rules; some may be missing, and some come several times."""
    for key in keys_in_use(rules):
        for path in key.paths:
            yield NamedFile(key.part.section, key.name, path, key.row)
    included = {path for paths in rules.files.included.values() for path in paths}
    for text in rules.files.texts:
        label = "include" if text in included else ""  # else the main file, or a list of networks
        yield NamedFile(rules.settings.section, label, Path(text), _INCLUDE)


def forbidden(rules: Rules) -> Iterator[Problem]:
    """Find what units name and their authors may not: files to read, folders for UNIX sockets, and the operator's servers for clients that they name themselves."""
    if rules.units:
        yield from _closed_files(rules)
        yield from _with_forged_clients(rules)


def _closed_files(rules: Rules) -> Iterator[Problem]:
    rights = FileRights()
    for section, key, path, bit in (*_read(rules), *_written(rules)):
        unit = rules.unit_of(section)
        if unit in rules.files.untaken:  # what is in force was allowed when it was taken
            continue
        author = rules.files.authors.get(unit)
        if why := rights.why_not(path, author, Path(section.path), rules.path, bit):
            yield section.problem(why, key)


def _is_of_others(rules: Rules, section: Section) -> bool:
    return other_author(rules.files.authors, rules.unit_of(section)) is not None


def _with_forged_clients(rules: Rules) -> Iterator[Problem]:
    """Find listeners whose authors say by PROXY headers who each client is, and let a server of the operator, or any by `source`, believe it."""
    for listener in rules.listeners:
        if listener.accept_proxy_from is None or not _is_of_others(rules, listener.section):
            continue
        unit = rules.unit_of(listener.section)
        routes = [one.outcome for one in rules.routes if rules.unit_of(one.section) == unit]
        for led in backends_of((*routes, *listener.outcomes)):
            is_told = led.proxy_protocol != "off" and not rules.unit_of(led.section)
            if is_told or led.source == ("client",):
                why = f"the server of [{led.section.header}] would take these clients for any that you name; remove this, or lead to another backend"
                yield listener.section.problem(why, "accept_proxy_from")


def _read(rules: Rules) -> Iterator[tuple[Section, str, Path, int]]:
    for key in keys_in_use(rules):
        section = key.part.section
        is_made = key.name == "terminate_tls" and key.part.terminate_tls.managed
        if rules.unit_of(section) and not is_made:
            for path in key.paths:
                for opened in opened_for(NamedFile(section, key.name, path, key.row)):
                    yield section, key.name, opened, os.R_OK


def _written(rules: Rules) -> Iterator[tuple[Section, str, Path, int]]:
    for listener in filter(lambda its: rules.unit_of(its.section), rules.listeners):
        for endpoint in map(parse_endpoint, listener.endpoints):
            if endpoint.kind == "unix":
                folder = Path(endpoint.named["address"]).absolute().parent
                yield listener.section, "endpoint", folder, os.W_OK


def unanswered(rules: Rules, late: OSError) -> list[Problem]:
    """Return an error for each key of units that names a file whose disk does not answer; none if the operator's rules do."""
    naming = [file for file in named_files(rules) if str(file.path) == late.filename]
    if not all(rules.unit_of(file.section) for file in naming):
        return []
    return [file.section.problem(why_unread(late), file.key) for file in naming]


def why_unread(problem: OSError) -> str:
    return f"{problem.filename}: cannot be read: {problem.strerror}"


def paths_by_opener(rules: Rules) -> Mapping[Opens, set[str]]:
    """Return the absolute paths of the files by which process opens them."""
    paths: dict[Opens, set[str]] = {opens: set() for opens in get_args(Opens)}
    for file in named_files(rules):
        paths[file.row.files.opens].add(os.path.abspath(file.path))  # noqa: PTH100 - links stay
    return paths


def opened_for(file: NamedFile) -> Iterator[Path]:
    """Yield the path that a key names, and the files with keys in it if it is a folder."""
    yield file.path
    if file.row.files.opens == "sent-folder":
        with suppress(OSError):  # it is a file, or has been yielded for that
            yield from (file.path / name for name in names_in(file.path) if is_key_file(name))


def check_disks(rules: Rules, *, by_worker: bool = False) -> None:
    """Open each file once where waiting does no harm, or each that a worker opens, before the reactor's thread reads it: its disk may not answer.

    Raises:
        TimeoutError: One does not, though others have waited for it.
    """
    late = None
    files = [
        file
        for file in named_files(rules)
        if (
            file.row.files.opens.startswith("worker")
            if by_worker
            # What is in force for these needs no file again.
            else rules.unit_of(file.section) not in rules.files.untaken
        )
    ]
    for path in {path for file in files for path in opened_for(file)}:
        try:
            open_once(path)
        except TimeoutError as problem:
            late = late or problem
        except OSError:  # who needs the file reports it
            continue
    if late is not None:
        raise late

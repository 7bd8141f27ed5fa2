"""Notices when the contents of the rules' files change, and reloads them if that is wanted."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from txmux.files import has_helper, read_bytes
from txmux.net.sockets.descriptors import SHORTAGE
from txmux.net.turns import in_thread
from txmux.rules.model import Files, Rules
from txmux.rules.model.rules import OPTIONS
from txmux.rules.reading.files import (
    LARGEST_RULES,
    included_paths,
    is_pattern,
    real_path,
    smallest_first,
    source_of,
    unlisted,
    version_of,
    with_unlisted,
    with_unseen,
)
from txmux.rules.reading.units import kept_files
from txmux.telemetry.steps import RecurringSteps

_UNSEEN = "watch_rules: the user of txmux may not list {folders}, so new files there are read at the next reload: let that user list it, or run txmux reload"
_NOTICED = 4.0  # seconds between two looks, where changed files are only to be noticed
_SETTLED = 1.0  # seconds that files must have stayed the same: a program may still be writing them
_LONGEST = 8.0  # seconds of writing after which units stop holding up the changes of others
# Begins the name of a file that a unit lacks, in a digest; others are absolute paths.
_LACKING = "@"


class RulesWatch:
    """Watches the files of the rules by their contents, so that it does not matter how they are replaced.

    They are read in a thread, since their disk may not answer.

    Args:
        reload: Starts a reload, with ``watch_rules``; it returns false if that is impossible now.
        recurring: Runs each look.

    Attributes:
        has_changed: Whether the files differ from the rules in force, where no reload follows by itself.
        looking: The look that is under way, if any.
    """

    _log = Logger()

    def __init__(self, reactor: Any, reload: Callable[[], bool], recurring: RecurringSteps) -> None:
        self._reactor = reactor
        self._reload = reload
        self._folder = Path.cwd()
        self._files = Files()
        self._seconds = 0.0
        self._loaded_digest: Mapping[str, str] = {}
        self._last_digest: Mapping[str, str] = {}
        self._writing: Mapping[str, float] = {}  # since when files have changed from look to look
        self._held_since = inf  # when files began to hold up changes, be they others at each look
        self._next: Any = None
        self.has_changed = False
        self.looking: Deferred[None] = succeed(None)
        self._recurring = recurring
        self._watch = object()  # another one since the last change of the rules
        self._unseen: list[str] = []

    def commit(self, rules: Rules) -> None:
        self.stop()
        self._files, self._seconds = rules.files, rules.settings.watch_rules
        self.has_changed = False
        if self._files.texts and str(rules.path) != OPTIONS and not rules.unreadable:
            self._loaded_digest = self._last_digest = loaded_digest(rules.files)
            self._wait(self._seconds or _NOTICED)

    def stop(self) -> None:
        self._watch = object()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _wait(self, seconds: float) -> None:
        self._next = self._reactor.callLater(seconds, self._check_files)

    def _check_files(self) -> None:
        self._next = None
        watch = self._watch
        looking = self._recurring.run(
            "look at the rules' files", lambda: Deferred.fromCoroutine(self._look(watch))
        )
        self.looking = (looking or succeed(None)).addCallback(lambda _: self._wait_again(watch))

    def _wait_again(self, watch: object) -> None:
        """After a failed look: there may have been no memory, or no thread."""
        if self._next is None and watch is self._watch:
            self._wait(self._seconds or _NOTICED)

    async def _look(self, watch: object) -> None:
        try:
            digest = await in_thread(current_digest, self._folder, self._files)
            unseen = self._unseen
            if self._seconds:
                unseen = await in_thread(unwatched, self._folder, self._files)
        except OSError as error:  # the reload reports it
            if error.errno in SHORTAGE:
                return  # the files may be as they were
            digest, unseen = {"": f"{error.filename}: {error.strerror}"}, self._unseen
        if watch is not self._watch:
            return
        if unseen and unseen != self._unseen:
            self._log.warn(_UNSEEN, folders=", ".join(unseen))
        self._unseen = unseen
        before, self._last_digest = self._last_digest, digest
        changed, written = _difference(digest, self._loaded_digest), _difference(digest, before)
        if not self._seconds:
            self.has_changed = bool(changed)
            self._wait(_NOTICED)
            return
        self._wait(min(_SETTLED, self._seconds) if changed else self._seconds)
        now = self._reactor.seconds()
        # What a unit lacks keeps only that from being read.
        self._writing = {
            name: self._writing.get(name, now) for name in written if not name.startswith(_LACKING)
        }
        own = _own(self._folder, self._files)
        endless = {
            name
            for name, since in self._writing.items()
            if name not in own and now - since >= _LONGEST
        }
        holding = self._writing.keys() - endless
        self._held_since = min(self._held_since, now) if holding else inf
        # Other files each time come to the same as one that is written all the time.
        if is_late := now - self._held_since >= _LONGEST:
            holding &= own
        self.has_changed = bool(endless) or is_late
        # Also recorded for rules with errors, so that these are logged once.
        if changed - written and not holding and self._reload():
            self._loaded_digest = digest


def loaded_digest(files: Files) -> Mapping[str, str]:
    return _digest(_loaded(files), files.lacking)


def current_digest(folder: Path, files: Files) -> Mapping[str, str]:
    lacking = {name: _lacking(folder / name, before) for name, before in files.lacking.items()}
    texts = {str(folder / path): text for path, text in _current_texts(folder, files)}
    return _digest(texts, lacking)


def _difference(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def _own(folder: Path, files: Files) -> set[str]:
    """Return the files of the operator's unit."""
    main = folder / next(iter(files.texts))
    return {
        str(main),
        *(str(main.parent / name) for name in files.included if not is_pattern(name)),
    }


def _current_texts(folder: Path, files: Files) -> Iterator[tuple[Path, str]]:
    """Read the files in the order in which rules are read; each once, as there."""
    main, room = folder / next(iter(files.texts)), LARGEST_RULES
    seen: set[Path] = set()
    itself = real_path(main)
    # No pattern finds them.
    named = {real_path(main.parent / one) for one in files.included if not is_pattern(one)}
    included: list[tuple[str | None, list[Path]]] = [(None, [main])]
    included += [(one, _included(folder, files, one)) for one in files.included]
    for pattern, paths in included:
        is_unit = pattern is not None and is_pattern(pattern)
        found: dict[Path, str] = {}
        for path in smallest_first(paths):
            try:
                real = real_path(path)
                if is_unit and real in named:
                    continue
                data = read_bytes(path, room)
                room -= len(data)
                if is_unit and real == itself:
                    found[path] = ""
                elif real not in seen:
                    seen.add(real)
                    found[path] = source_of(path, data).text
            except OSError as error:
                if not is_unit or error.errno in SHORTAGE:
                    raise
                found[path] = ""  # as it is read
        yield from ((path, found[path]) for path in paths if path in found)


def _lacking(path: Path, before: str) -> str:
    """Return of a file that keeps a unit from being taken what `Files.lacking` has; as before if this process cannot see it."""
    try:
        return version_of(path)
    except OSError as error:
        if error.errno in SHORTAGE:
            raise
        return before if isinstance(error, PermissionError) else ""


def _included(folder: Path, files: Files, pattern: str) -> list[Path]:
    """Return which files a pattern means now; one whose folder this process may not list is there unless it is known to be gone."""
    start = (folder / next(iter(files.texts))).parent
    before = [folder / path for path in files.included[pattern]]
    paths = with_unseen(
        included_paths(start, pattern), before, {folder / one for one in kept_files(files)}
    )
    if not is_pattern(pattern):
        return paths
    closed = unlisted(start, pattern)
    for error in closed.values():
        if error.errno in SHORTAGE:
            raise error
    left = (path for path, error in closed.items() if path in before or not _is_helpers(error))
    return with_unlisted(paths, left)


def _is_helpers(error: OSError) -> bool:
    """Return whether the helper, which reads the rules, may list a folder that this process may not."""
    return has_helper() and isinstance(error, PermissionError)


def unwatched(folder: Path, files: Files) -> list[str]:
    """Return the folders in which this process sees no new files, though the helper does."""
    start = (folder / next(iter(files.texts))).parent
    patterns = filter(is_pattern, files.included) if has_helper() else ()
    closed = (error for one in patterns for error in unlisted(start, one).values())
    return sorted({str(error.filename) for error in closed if _is_helpers(error)})


def _loaded(files: Files) -> Mapping[str, str]:
    texts = files.on_disk
    paths = [next(iter(texts)), *chain.from_iterable(files.included.values())]
    return {str(Path(path).absolute()): texts[path] for path in paths}


def _digest(texts: Mapping[str, str], lacking: Mapping[str, str]) -> Mapping[str, str]:
    digests = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    return digests | {f"{_LACKING}{name}": version for name, version in lacking.items()}

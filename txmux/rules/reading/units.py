"""Units that are not taken: what counts of the files that patterns of ``include`` find. Pure."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import attrs

from txmux.rules.model import Files, Rules, Section
from txmux.rules.model.files import unit_at
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.conflicts import Claims
from txmux.rules.reading.conflicts import claims as claims_of
from txmux.rules.reading.files import LARGEST_RULES, SourceFile, expand_section, is_pattern
from txmux.rules.reading.ini import read_ini
from txmux.rules.reading.route import is_outer, managed_claims
from txmux.rules.reading.scope import INSIDE

# What is read as one, also with an error in it.
_HEADER = re.compile(r"^\[+[^\S\n]*(unit(?:[^\S\n][^\]\n]*)?)(?:\].*)?$", re.MULTILINE)

Contests = Callable[[Collection[str]], Iterable[Problem]]
"""Finds the names and addresses that several sections claim, without those of some units: all but one have lost."""
_Problems = dict[str, list[Problem]]  # by unit
_OUTCOMES = frozenset(("backend", "default", "fallback"))
_GONE = "is gone, and "


def is_divided(text: str) -> bool:
    return _HEADER.search(text) is not None


class UntakenUnits:
    """Which units are left out of the next reading, and why: each has what is in force for it instead, or else nothing.

    Args:
        in_force: The files of the rules in force.
        before: Those that were read last, where what is in force takes no unit's place.

    Attributes:
        problems: What is wrong with each, by their names.
        lacking: As in `Files`.
    """

    def __init__(self, in_force: Files | None = None, before: Files | None = None) -> None:
        self.in_force = in_force or Files()
        self.before = before or self.in_force
        self.problems: dict[str, Sequence[Problem]] = {}
        self.lacking: dict[str, str] = {}
        self._claims: dict[str, dict[str, set[tuple[object, ...]]]] = {}  # by file and unit
        self._refusing: dict[str, set[tuple[str, str]]] = {}  # sections and keys, by unit
        self._emptied: set[str] = set()
        self._closed: set[str] = set()  # files of which nothing is taken
        self._lost_to: dict[str, list[tuple[str, bool]]] = {}
        self._later: dict[str, int] = {}  # those that try again come after all before
        self._tried: set[object] = set()
        self._sorted: tuple[tuple[str, ...], Mapping[str, Sequence[str]]] = (), {}

    def leave_out(
        self,
        problems: Sequence[Problem],
        units: Mapping[str, Sequence[tuple[int, str]]],
        contests: Contests = lambda _: (),
    ) -> None:
        """Leave the units out that have problems; it is a `RulesError` if the operator's has some, or if that was of no use.

        Those that have lost a name or an address are left out if that belongs to a unit which is not.
        """
        found = _by_unit(problems, units)
        if "" in found or self._closed >= {problem.path for problem in problems}:
            raise RulesError([*chain.from_iterable(self.problems.values()), *problems])
        # What else is wrong in one that has lost a name may be due to who has that.
        own = {name: [one for one in its if not one.claimant] for name, its in found.items()}
        wrong = {name: its for name, its in found.items() if len(own[name]) == len(its)}
        while lost := _by_unit(contests(wrong), units):
            before = {*self.problems}
            for name in (certain := _certain(lost, units)):
                self._lost_to[name] = [(of, of in before) for of in _claimants(lost[name], units)]
            wrong |= {name: [*lost[name], *own.get(name, ())] for name in certain}
        for name, found_in in wrong.items():
            its = tuple(sorted(found_in, key=lambda one: one.line))
            if name not in self.problems:
                self.problems[name] = its
            elif name not in self._refusing and all(problem.key in _OUTCOMES for problem in its):
                # What is in force for it leads to what is gone: its clients are not left to others.
                self._refusing[name] = {(problem.section, problem.key) for problem in its}
            elif name not in self._emptied:  # what is in force for it is wrong, too
                self._emptied.add(name)
                if _has_lost(self.problems[name]):
                    self.problems[name] = tuple(dict.fromkeys([*self.problems[name], *its]))
            else:  # its header is none that `_HEADER` finds
                self._closed.add(its[0].path)

    def try_again(self) -> bool:
        """Take in again what has lost to units that have since been left out, or taken.

        It comes after those that are taken now; first who has something in force, since that can be in the way of others.
        """
        again = {
            name
            for name, others in self._lost_to.items()
            if name in self.problems and all((of in self.problems) != was for of, was in others)
        }
        state = frozenset(self.problems), frozenset(again)
        if not again or state in self._tried:
            return False
        self._tried.add(state)
        self._later |= dict.fromkeys(again, len(self._tried))
        for name in again:
            del self.problems[name], self._lost_to[name]
            self._refusing.pop(name, None)
        self._emptied -= again
        return True

    def precedence(self, unit: str, section: Section, claim: str | Claims = "") -> int:
        """Return how early a section may claim its name, all of an endpoint, or to be `INSIDE`: the operator first, then what is in force."""
        if not unit:
            return 0
        in_force = self._claims_in(section.path).get(unit, set())
        if isinstance(claim, str):
            is_in_force = not in_force.isdisjoint({(section.header, claim), ("", claim)})
        else:
            is_in_force = all((*part[:-1], "every") in in_force for part in claim - in_force)
        if is_in_force:
            return 1
        turn = self._later.get(unit, 0)
        return 2 + 2 * turn + (turn > 0 and not in_force)

    def _claims_in(self, path: str) -> Mapping[str, set[tuple[object, ...]]]:
        """Return what each unit of a file has in force: headers, each with nothing or with `INSIDE`, names of certificates without one, and parts of addresses."""
        if path not in self._claims:
            found = self._claims[path] = {}
            for unit, text in _parts(path, self.before.texts.get(path, "")):
                claims = found.setdefault(unit, set())
                for written in read_ini(text, path)[0]:
                    section, _ = expand_section(written, self.before.variables.get)
                    # Of an address, the listener may have another name by now, or another text.
                    claims.update(*(claims_of(item.text)[0] for item in section.items("endpoint")))
                    claims.update(("", claim) for claim in managed_claims(section))
                    claims.add((section.header, ""))
                    if section.header.startswith("listen ") or is_outer(section):
                        claims.add((section.header, INSIDE))
        return self._claims[path]

    def with_gone(self, files: Files) -> Files:
        """Return files with empty ones for those that are gone, and of which a unit is left out."""
        left_out = {its[0].path for its in self.problems.values()}.difference(files.texts)
        if not left_out:
            return files
        texts, included = {**files.texts}, {**files.included}
        for pattern, paths in files.included.items():
            if gone := left_out.intersection(self.before.included.get(pattern, ())):
                included[pattern] = sorted({*paths, *gone})
                texts |= dict.fromkeys(gone, "")
        return attrs.evolve(files, texts=texts, included=included)

    def add(self, files: Files) -> None:
        """Take over which units were not taken, but for those that only others keep out: these may be out by now."""
        for name in [name for name, its in self.problems.items() if _has_lost(its)]:
            del self.problems[name]
            self._refusing.pop(name, None)
            self._emptied.discard(name)
        for state in (self._lost_to, self._later, self._tried):
            state.clear()
        for name, problems in files.untaken.items():
            if not _has_lost(problems):
                self.problems.setdefault(name, problems)

    def _names_in(self, path: str) -> Sequence[str]:
        """Return which units of a file are left out; one user may have thousands of files with errors."""
        names = (*self.problems,)
        if names != self._sorted[0]:
            by_path: dict[str, list[str]] = {}
            for name, its in self.problems.items():
                by_path.setdefault(its[0].path, []).append(name)
            self._sorted = names, by_path
        return self._sorted[1].get(path, ())

    def taken(self, source: SourceFile) -> SourceFile:
        """Return what counts of a file."""
        here = self._names_in(source.path)
        if not here:
            return source
        before = self.in_force.texts.get(source.path, "")
        if source.path in self._closed:
            text = _emptied(source.text)
        elif source.path in here and not is_divided(source.text):
            text = before  # such as one that cannot be read
        else:
            old = _joined(source.path, before)
            text = "\n".join(
                old.pop(name, _emptied(its)) if name in here else its
                for name, its in _parts(source.path, source.text)
            )
            text = "\n".join([text, *(old[name] for name in here if name in old)])  # that are gone
        text = "\n".join(
            _emptied(its) if name in self._emptied else self._refused(name, its)
            for name, its in _parts(source.path, text)
        )
        begun = [(1, source.path), *_begun(source.path, source.text)]
        rest = [
            its
            for its in source.problems
            if unit_at({source.path: begun}, its.path, its.line) not in here
        ]
        return attrs.evolve(source, text=text, problems=tuple(rest))

    def _refused(self, unit: str, text: str) -> str:
        """Return a text in which outcomes that are wrong refuse."""
        header, lines = "", []
        for line in text.split("\n") if unit in self._refusing else ():
            if line.startswith("["):
                header = " ".join(line.strip("[] \t").split())
            key = line.partition("=")[0].strip()
            lines.append(f"{key} = close" if (header, key) in self._refusing[unit] else line)
        return "\n".join(lines) or text


class OnlyUnits(UntakenUnits):
    """Leaves out all units but these."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self._names = names

    def taken(self, source: SourceFile) -> SourceFile:
        text = with_units(source.path, source.text, self._names.__contains__)
        return super().taken(attrs.evolve(source, text=text, problems=()))


def lost_units(files: Files) -> set[str]:
    return {name for name, problems in files.untaken.items() if _has_lost(problems)}


def changed_units(rules: Rules, before: Files) -> Iterator[tuple[str, Problem]]:
    """Yield the name of each unit that is taken, and not as it was before, with a problem there that has no text; of those that are gone, too."""
    for path, begun in rules.units.items():
        old, new = (_joined(path, its.texts.get(path, "")) for its in (before, rules.files))
        old = {**dict.fromkeys(new, ""), **old}
        for line, name in begun:
            text = new.get(name, "")
            if name not in rules.files.untaken and text.strip() != old.pop(name, text).strip():
                yield name, Problem(path, line, "", "", "")
        for name in old if path not in rules.files.untaken else ():
            if name not in new:
                yield name, Problem(path, 0, "", "", _GONE)
    for pattern, paths in before.included.items():
        for path in paths if is_pattern(pattern) else ():
            if path not in rules.files.texts:
                yield path, Problem(path, 0, "", "", _GONE)


def kept_files(files: Files) -> set[str]:
    """Return the files that are gone, and whose rules stay in force."""
    return {unit for unit, its in files.untaken.items() if its[0].message.startswith(_GONE)}


def texts_of_units(rules: Rules) -> tuple[dict[str, str], list[str]]:
    """Return the texts in force of all units, and of the lists of networks that they name: enough to read them again.

    Of more lists than `LARGEST_RULES`, the largest ones are left out, whose paths come second.
    """
    known, room = rules.files.texts, LARGEST_RULES
    texts, left_out = {path: known[path] for path in rules.units}, []
    for path in sorted(rules.unit_lists, key=lambda path: (len(known[path]), path)):
        room -= len(known[path])
        if room < 0:
            left_out.append(path)
        else:
            texts[path] = known[path]
    return texts, left_out


def _has_lost(problems: Iterable[Problem]) -> bool:
    return all(problem.claimant for problem in problems)


def _by_unit(
    problems: Iterable[Problem], units: Mapping[str, Sequence[tuple[int, str]]]
) -> _Problems:
    found: _Problems = {}
    for problem in problems:
        found.setdefault(unit_at(units, problem.path, problem.line), []).append(problem)
    return found


def _claimants(
    problems: Iterable[Problem], units: Mapping[str, Sequence[tuple[int, str]]]
) -> set[str]:
    return {unit_at(units, *one.claimant) for one in problems if one.claimant}


def _certain(lost: _Problems, units: Mapping[str, Sequence[tuple[int, str]]]) -> Sequence[str]:
    """Return which units have lost whatever becomes of the others, or else the first of a circle."""
    claimants = {name: _claimants(its, units) for name, its in lost.items()}
    losers: dict[str, list[str]] = {}
    for name, others in claimants.items():
        for other in others:
            losers.setdefault(other, []).append(name)
    certain = dict.fromkeys(
        [name for name, others in claimants.items() if name in others or not others <= lost.keys()]
        or [*lost][:1]
    )
    left = [*certain]
    while left:
        # Who alone has lost to one that is left out, and to no other, gets what that had: if several have, they are rivals.
        freed = losers.get(left.pop(), ())
        if len(freed) == 1 and len(claimants[freed[0]]) == 1:
            more = [name for name in losers.get(freed[0], ()) if name not in certain]
            certain |= dict.fromkeys(more)
            left += more
    return [*certain]


def _begun(path: str, text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.fullmatch(line):
            yield number, f"{path} [{' '.join(header[1].split())}]"


def _parts(path: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a text by the names of their units."""
    lines, first, name = text.split("\n"), 0, path
    for number, following in _begun(path, text):
        if number > 1:
            yield name, "\n".join(lines[first : number - 1])
        first, name = number - 1, following
    yield name, "\n".join(lines[first:])


def with_units(path: str, text: str, is_one: Callable[[str], bool]) -> str:
    """Return the text of a file with empty lines in the place of the units that are none of these."""
    return "\n".join(its if is_one(name) else _emptied(its) for name, its in _parts(path, text))


def _joined(path: str, text: str) -> dict[str, str]:
    """Return the text of each unit, which may have several parts."""
    units: dict[str, str] = {}
    for name, its in _parts(path, text):
        units[name] = f"{units[name]}\n{its}" if name in units else its
    return units


def _emptied(text: str) -> str:
    # What is below keeps its lines.
    return "\n" * text.count("\n")

"""From the text of a rules file to `Rules`, or to all that is wrong in it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from txmux.detection.registry import installed_matchers
from txmux.files import within_patience
from txmux.interfaces import IProtocolMatcher
from txmux.rules.collecting import uncollected
from txmux.rules.model import Files, Rules
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.context import OnDisk
from txmux.rules.reading.files import SourceFile, is_gone, main_of, read_source, source_of
from txmux.rules.reading.rules_parser import LastRules, RulesParser
from txmux.rules.reading.units import OnlyUnits, UntakenUnits, lost_units


def load(
    path: Path | str,
    matchers: Mapping[str, IProtocolMatcher] | None = None,
    data: bytes | None = None,
    *,
    are_pem_files_there: bool = True,
    in_force: Files | None = None,
) -> Rules:
    """Read a rules file and all that it includes.

    Args:
        path: The file.
        matchers: The matchers by name; by default those that are installed.
        data: What is in it, if that has been read already.
        are_pem_files_there: Whether missing files for TLS are errors. A service that runs may have what was in them.
        in_force: The files that a service has read before: what it may no longer see of them is not taken for gone, and what they
            claim is theirs.

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
    last = last_read  # a thread may read others meanwhile
    if last is not None and last.is_still_so(source, matchers):
        return last.rules
    return _read(source, matchers, UntakenUnits(before=in_force), on_disk=on_disk)


def load_draft(
    path: Path | str, draft: SourceFile, before: str = "", *, keep: bool = True
) -> Rules:
    """Read a rules file with a draft in the place of a file that it includes.

    Args:
        path: The rules file; `OSError` if it cannot be read.
        draft: The text of the included file, of which every problem is raised.
        before: What is in force of that file: its names and addresses stay its own.
        keep: Whether the next one is likely to be much the same, which then takes little time.
    """
    untaken = UntakenUnits(before=Files({draft.path: before}))
    return _read(
        read_source(path), installed_matchers(), untaken, keep=keep, own=draft.path, draft=draft
    )


def load_within_patience(path: Path | str, *arguments: Any, **options: Any) -> Rules:
    """Call `load` in a process without a reactor; a disk that does not answer is an error, too."""
    return _within_patience(partial(load, path, *arguments, **options))


def _within_patience(read: Callable[[], Rules]) -> Rules:
    try:
        return within_patience(read)
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
    return RulesParser(SourceFile(str(path), text), matchers).rules()


def read_again(files: Files, untaken: UntakenUnits | None = None) -> Rules:
    """Read rules from what was in their files, as another process does; with `untaken`, without the units that are errors to this one, which may be newer."""
    last = last_read
    if last is not None and last.is_installed and last.says(files):
        return last.rules
    return _read(main_of(files.texts), installed_matchers(), untaken, known=files)


last_read: LastRules | None = None


@uncollected()
def _read(
    main: SourceFile,
    matchers: Mapping[str, IProtocolMatcher],
    untaken: UntakenUnits | None = None,
    *,
    keep: bool = True,
    own: str = "",
    **options: Any,
) -> Rules:
    """Read rules, taking over what reads the same as in the last ones; with `untaken`, without the units that have errors.

    Other errors are found by reading all of it, and raised, as are those of the file `own`.
    """
    last = before = last_of(main, matchers, looks_on_disk=bool(options.get("on_disk")))
    while True:
        parser = RulesParser(main, matchers, last=last, untaken=untaken, **options)
        try:
            rules = remembered(parser) if keep else parser.rules()
            if untaken is None or not untaken.try_again():
                return rules
        except RulesError as error:
            if last is not None:
                last = None
                continue
            if untaken is None:
                raise
            untaken.leave_out(error.problems, {**parser._units, own: ()}, parser.contests)
            untaken.lacking |= parser._files.lacking
        last = before


def with_unseen_units(rules: Rules, before: Files) -> Rules:
    """Return rules, which this process has just read, with the files of before that it cannot see, and that are not known to be gone.

    A disk that does not answer is an error, as with `load_within_patience`.
    """
    included = rules.files.included
    unseen = [
        Path(path)
        for pattern, paths in before.included.items()
        for path in {*paths}.difference(included.get(pattern, paths))
    ]
    return _within_patience(partial(_with_unseen, rules, before, unseen)) if unseen else rules


def _with_unseen(rules: Rules, before: Files, unseen: Sequence[Path]) -> Rules:
    if all(map(is_gone, unseen)):
        return rules
    untaken, main = UntakenUnits(before=before), main_of(rules.files.on_disk)
    return _read(main, installed_matchers(), untaken, on_disk=_on_disk(rules))


def _on_disk(rules: Rules) -> OnDisk:
    last = last_read
    return last.reading._on_disk if last is not None and last.rules is rules else ""


def retaken(rules: Rules, untaken: UntakenUnits) -> Rules:
    """Return rules, read just now, with what is in force in the place of units that are not taken."""
    files = untaken.with_gone(rules.files)
    if not untaken.problems and (files is untaken.in_force or not files.untaken):
        return rules
    untaken.add(files)
    texts, before = files.on_disk, untaken.in_force
    # What is in force for a unit may name lists and variables that no text of now names.
    lists = {name: text for name, text in before.texts.items() if name not in texts}
    variables = {**before.variables, **files.variables}
    known = attrs.evolve(
        files, texts={**texts, **lists}, variables=variables, as_read={}, untaken={}
    )
    on_disk = _on_disk(rules)
    return _read(main_of(texts), installed_matchers(), untaken, known=known, on_disk=on_disk)


def without_unservable(
    rules: Rules, untaken: UntakenUnits, unservable: Callable[[Rules], Sequence[Problem]]
) -> Rules:
    """Return rules as `retaken` does, with what is in force also for units in which `unservable` finds problems.

    A disk that does not answer is an error, as with `load_within_patience`.
    """
    rules = _within_patience(partial(retaken, rules, untaken))
    while problems := unservable(rules):
        untaken.leave_out(problems, rules.units)
        rules = _within_patience(partial(retaken, rules, untaken))
    return rules


def rules_of_lost(
    rules: Rules, unservable: Callable[[Rules], Sequence[Problem]]
) -> Iterator[Rules]:
    """Yield rules, read just now, with no units but those that others have kept out: first these, then what they keep out in turn."""
    files, on_disk, before = rules.files, _on_disk(rules), set[str]()
    known = attrs.evolve(files, texts=files.on_disk, as_read={}, untaken={})
    main = main_of(known.texts)
    matchers = installed_matchers()
    while (lost := lost_units(files)) != before:
        untaken = OnlyUnits(lost)
        read = partial(_read, main, matchers, untaken, keep=False, known=known, on_disk=on_disk)
        found = read()
        while problems := unservable(found):
            untaken.leave_out(problems, found.units)
            found = read()
        yield found
        files, before = found.files, lost


def last_of(
    main: SourceFile, matchers: Mapping[str, IProtocolMatcher], *, looks_on_disk: bool
) -> LastRules | None:
    """Return what was read last, if it was by the same means."""
    last = last_read  # a thread may read others meanwhile
    if last is None or last.matchers is not matchers or str(last.rules.path) != main.path:
        return None
    return last if last.reading.looks_on_disk == looks_on_disk else None


def remembered(parser: "RulesParser") -> Rules:
    """Return the rules of a parser, from which the next one may take over; raises `RulesError`."""
    global last_read  # noqa: PLW0603 - it is about the process
    reading = parser._reading
    rules = parser.rules()
    reading.finish()
    last_read = LastRules(rules, reading, parser._parts, parser._values, parser._naming_files)
    return rules


def errors_alone(source: SourceFile) -> tuple[Problem, ...]:
    """Find the errors of a file that do not depend on other files, since another file may include it.

    No other file is read, variables of the environment neither; names are taken to be somewhere.
    """
    try:
        RulesParser(source, None, alone=True).rules()
    except RulesError as error:
        return error.problems
    return ()


def is_as_read(rules: Rules) -> bool:
    last = last_read
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

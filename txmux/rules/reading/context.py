"""Values that refer to other files, other sections or matchers."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from txmux.errors import joined
from txmux.files import LARGEST_LIST
from txmux.interfaces import IProtocolMatcher
from txmux.rules.advice.words import word_first
from txmux.rules.model import (
    NAMES,
    NOWHERE,
    AnyNetworks,
    Backend,
    DynamicNetworks,
    Files,
    Handover,
    NetworkSet,
    Outcome,
    Public,
    Reachable,
    Refusal,
    Section,
    Server,
    Settings,
)
from txmux.rules.model.files import other_author
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading import endpoints
from txmux.rules.reading.endpointstrings import handover, is_handover, split_ports
from txmux.rules.reading.files import LARGEST_RULES, FileReader, FileRights, check_file, version_of
from txmux.rules.reading.networks import NetworkLists
from txmux.rules.reading.scope import Fits, Scope
from txmux.rules.reading.values import (
    NAME,
    SWITCH_WORDS,
    ValueKind,
    file_path,
    network,
    one_path,
    split_words,
)
from txmux.transport import Transport

_MOST_ADVISED = 200
"""Errors of one file, or of one author who is neither root nor the operator."""
_MOST_PORTS = 1 << 17
"""Of one author who is neither root nor the operator: all ports of TCP and UDP."""
_MOST_STATES = 50_000
"""Of such an author, all expressions: each process takes a second to build them, and some MB to keep them."""
REFUSALS = {refusal.value: refusal for refusal in Refusal}
"""Outcomes other than backends, by their words."""

NetworksReader: TypeAlias = "Callable[..., DynamicNetworks | None]"
ServerKindFinder: TypeAlias = "Callable[[str], endpoints.ServerKind | None]"
Need: TypeAlias = "tuple[Callable[[RulesReading, Any], object], Any, object]"
OnDisk: TypeAlias = Literal["", "all but PEM", "all"]


class RulesReading:
    """Reads values that mean something only together with the rest of the rules.

    Args:
        networks: Reads what features know as networks; see `txmux.rules.installed.networks_of`.
        server_kind_of: Finds what features read as servers; see `txmux.rules.installed.server_kind_of`.
        backend: Returns the backend of a section, if there is one of this name.
        on_disk: Which files have to be there that only the service needs.
        alone: Whether the file is read without others, which may define the names that it uses.
        before: An earlier reading, from which equal parts are taken over.

    Attributes:
        home: The folder of the main file.
        folder: That of the file which is being read, and
        unit: the unit of the section; empty for the operator's.
        owners: The units of sections, by their identities.
        authors: The users who have written units, by their names, and the main file.
        scope: Which listeners routes may be under.
        may_be_provided: Whether files that a pattern finds may have what is missing.
        sections: By kind and name; several of one name are an error already.
        checked: The files that are there, and what each is.
        allowed: The files that authors may read: each with its author, and the file that names it.
        unit_lists: The paths of the lists of networks that units name.
        section: The section that is read.
        needs: What the values of the section that is read come from beside its text: a function, its text, and the result.
    """

    def __init__(
        self,
        files: FileReader,
        matchers: Mapping[str, IProtocolMatcher],
        backend: Callable[[str], Backend | None],
        networks: NetworksReader,
        server_kind_of: ServerKindFinder,
        *,
        on_disk: OnDisk,
        alone: bool,
        before: "RulesReading | None",
    ) -> None:
        self.files = files
        self.alone = alone
        self.unit, self.may_be_provided = "", False
        self.untaken: Collection[str] = ()  # of these units, what is in force is read
        self.scope = Scope(files.folder)
        self.owners: Mapping[int, str] = {}
        self.authors: dict[str, int] = {}
        self.matchers = matchers
        self.home = self.folder = files.folder
        self.problems: list[Problem] = []
        self.sections: dict[str, dict[str, list[Section]]] = {}
        self.settings = Settings()
        self._backend = backend
        self._other_networks = networks
        self._server_kind_of = server_kind_of
        # Servers in short form, of which thousands of routes may name the same.
        self._short: dict[str, Backend] = {}
        self._short_before: Mapping[str, Backend] = {}
        self._short_needs: dict[str, Sequence[Need]] = {}
        self._on_disk = on_disk
        self._rights = FileRights()
        self.looks_on_disk = bool(on_disk)
        self._lists: NetworkLists = NetworkLists(
            files, self.problems, None if before is None else before._lists
        )
        self.checked: dict[Path, str] = {}
        self.allowed: set[tuple[Path, int | None, Path]] = set()
        self.unit_lists: set[str] = set()
        self.needs: list[Need] = []
        self.section = NOWHERE
        # By authors, units and sections.
        self._states: dict[int, dict[str, Counter[tuple[str, int, str]]]] = {}
        self._states_of = Counter[int]()  # the same, by authors alone
        self._ports = Counter[int | None]()  # by authors
        self._lists_of = Counter[int | None]()  # bytes of files, by authors
        self._advised = Counter[str | int]()  # errors, by files, or authors as above

    def advises(self, section: Section) -> bool:
        """Return whether one more error of a file, or of another owner, gets advice, which takes longer than all the reading: of very many, only the first do."""
        author = self.other_author
        whose = section.path if author is None else author
        self._advised[whose] += 1
        return self._advised[whose] <= _MOST_ADVISED

    def is_owned(self, section: Section) -> bool:
        return id(section) in self.owners

    def usual_listeners(self, unit: str, fits: Fits = bool) -> tuple[str, ...]:
        return self.scope.usual(unit, fits)

    def every_listener(self, unit: str, _: Fits = bool) -> tuple[str, ...]:
        return self.scope.every(unit)

    def transports_of(self, its: tuple[str, tuple[str, ...]]) -> tuple[Transport, ...]:
        return self.scope.transports_of(*its)

    def is_own(self, section: Section) -> bool:
        return self.owners.get(id(section), "") == self.unit

    def take_over_short_forms(self, before: "RulesReading") -> None:
        self._short_before = before._short

    def finish(self) -> None:
        """Keep what the next reading takes over, not the one before, and not the tables of the parser."""
        self._short_before, self._short_needs = {}, {}
        self._lists.forget_before()
        del self.sections, self._backend, self.owners

    @property
    def lists_are_as_read(self) -> bool:
        return self._lists.are_as_read

    def is_allowed_as_read(self, main: Path) -> bool:
        """Return whether the lists are as they were read, and their authors may still read them."""
        rights = FileRights()
        return self.lists_are_as_read and not any(
            rights.why_not(*named, main) for named in self.allowed
        )

    def pem(self, text: str) -> Path:
        if text in {"letsencrypt", "certbot"}:
            message = f"takes the paths of PEM files, or acme, not {text!r}; write acme"
            raise InvalidValueError(message)
        if text in SWITCH_WORDS:
            message = f"takes the paths of PEM files, not {text!r}; write them, or remove this"
            raise InvalidValueError(message)
        # What another owner than the operator names may come later.
        must_be_there = self._on_disk == "all" and not self.unit
        return self._beside(text, "the path of a PEM file", check=must_be_there)

    def beside(self, text: str, what: str) -> Path:
        return self._beside(text, what, check=bool(self._on_disk))

    def _beside(self, text: str, what: str, *, check: bool) -> Path:
        path = self.home / file_path(text)
        if check:
            self.needs.append((RulesReading._check, (path, what), None))
            if self.unit not in self.untaken:  # else the service has what was in it
                self._check((path, what))
        return path

    @contextmanager
    def _needing(self, path: Path) -> Iterator[None]:
        """Record that a unit lacks a file, if it is of no use."""
        version = ""  # from before it is read: a change meanwhile is noticed later
        if self.unit and self.looks_on_disk:
            with suppress(OSError):
                version = version_of(path)
        try:
            yield
        except InvalidValueError:
            if self.unit:
                self.files.lacking[str(path)] = version
            raise

    def _check(self, named: tuple[Path, str]) -> None:
        with self._needing(named[0]):
            check_file(*named)
        self.checked[named[0]] = named[1]

    def secret(self, text: str) -> Path:
        return self.beside(text, "a file that has the secret as its only line")

    def server(self, text: str) -> Server:
        made = endpoints.server(text, self._server_kind_of, self.settings)
        if made.kind == "endpoint":
            self.refuse_others(repr(made.text))
        return attrs.evolve(made, owner=self.other_author) if made.kind == "unix" else made

    def add_author(self, unit: str, author: int | None) -> None:
        """Note who has written a unit, or the main file, which comes first and has no name; ``None`` is not known."""
        if author is not None:
            self.authors[unit] = author
            if unit and other_author(self.authors, unit) is not None:
                self.scope.of_others.add(unit)

    def is_by_same(self, before: Files, path: str) -> bool:
        """Return whether a file and the main one have the authors that they had before; with another, the same text may be wrong."""
        return all(before.authors.get(one) == self.authors.get(one) for one in ("", path))

    def add_listener(self, unit: str, name: str, section: Section) -> bool:
        """Note that routes may be under a listener; return whether it is to be compared with others, as its author has not too many ports."""
        author = other_author(self.authors, unit)
        if author is not None:
            several = (split_ports(item.text) for item in section.items("endpoint"))
            self._ports[author] += sum(len(one[1]) if one else 1 for one in several)
            if self._ports[author] > _MOST_PORTS:
                why = f"all files of user {author} may have {_MOST_PORTS} ports; listen on fewer"
                self.problems.append(section.problem(why, "endpoint"))
                return False
        self.scope.add(unit, name, section)
        return True

    def count_states(self, states: int) -> bool:
        """Count the states of an expression in a section; return whether its author does not have too many."""
        author = self.other_author
        if author is None:
            return True
        self.needs.append((RulesReading._count_again, states, None))
        self._count_again(states)
        return self._states_of[author] <= _MOST_STATES

    def _count_again(self, states: int) -> None:
        """Count them where the section is taken over."""
        author = self.other_author
        if author is not None:
            its = self._states.setdefault(author, {}).setdefault(self.unit, Counter())
            its[self.section.path, self.section.line, self.section.header] += states
            self._states_of[author] += states

    def ordered_needs(self) -> tuple[Need, ...]:
        # What only counts is last: a section of which another need does not hold is counted as it is read.
        return tuple(sorted(self.needs, key=lambda need: need[0] is RulesReading._count_again))

    def too_many_states(self) -> Iterator[Problem]:
        """Yield problems in the largest units of an author who has too many: one for each of the sections without which there would be room."""
        for author, units in self._states.items():
            why = f"all expressions in files of user {author} may have {_MOST_STATES} states; use fewer, or shorter ones"
            room = _MOST_STATES
            for _, its in sorted(units.items(), key=lambda one: (one[1].total(), one[0])):
                over = its.total() - room
                by_size = sorted(
                    ((states, section) for section, states in its.items()), reverse=True
                )
                for states, section in by_size:
                    if over > 0:
                        yield Problem(*section, "", why)
                    over -= states
                room = max(0, room - its.total())

    @property
    def other_author(self) -> int | None:
        return other_author(self.authors, self.unit)

    def refuse_others(self, what: str) -> None:
        """Refuse what the service does with rights that only root and the operator have."""
        if self.other_author is not None:
            main, who = str(self.files.main), self.other_author
            message = f"only files of root and of the owner of {main!r}, not those of user {who}, may have {what}"
            raise InvalidValueError(message)

    def networks(self, text: str, *, denied: bool = False) -> AnyNetworks:
        """Read a network, what a feature knows as networks, or ``@FILE``; a relative path starts at the folder of the file that names it."""
        other = self._other_networks(
            text, self.settings, alone=self.alone, denied=denied, refuse_others=self.refuse_others
        )
        if other is not None:
            return other
        if not text.startswith("@"):
            named = network(text)
            if named.num_addresses == 1 and named.network_address.is_unspecified:
                message = f"{text!r} is the address of no client; for all of them write '{named.network_address}/0'"
                raise InvalidValueError(message)
            return named
        name = text[1:].strip()
        if not name:
            raise InvalidValueError("'@' names no file; its path belongs behind it")
        if self.alone:
            return NetworkSet([])
        path = self.folder / name
        found = self._list(path)
        self.needs.append((RulesReading._list, path, found))
        return found

    def check_author(self, path: Path, file: Path) -> None:
        named = path, self.authors.get(self.unit), file
        if why := self._rights.why_not(*named, self.files.main):
            raise InvalidValueError(why)
        self.allowed.add(named)

    def _list(self, path: Path) -> NetworkSet:
        # What is taken over comes here, too; what is in force was allowed when it was taken.
        if self.unit and self.looks_on_disk and self.unit not in self.untaken:
            self.check_author(path, Path(self.unit.partition(" [unit ")[0]))
        with self._needing(path):
            found = self._read_list(path)
        if self.unit:
            self.unit_lists.add(str(path))
        return found

    def _read_list(self, path: Path) -> NetworkSet:
        author, most = self.other_author, LARGEST_LIST
        if author is not None and str(path) not in self.unit_lists:
            most = LARGEST_RULES
            with suppress(OSError, ValueError):  # which is raised below
                if self._lists_of[author] <= most:
                    self._lists_of[author] += len(self.files.text(path, most))
            if self._lists_of[author] > most:
                message = f"all lists that files of user {author} name may have {most >> 20} MiB; name fewer, or smaller ones"
                raise InvalidValueError(message)
        return self._lists(path, most, is_of_unit=bool(self.unit))

    def reachable(self, text: str) -> AnyNetworks | Public:
        return Public.PUBLIC if text == Public.PUBLIC.value else self.networks(text)

    def denied(self, text: str) -> AnyNetworks:
        return self.networks(text, denied=True)

    def outcome(self, text: str) -> Outcome:
        found = self._outcome(text)
        if isinstance(found, Handover):
            self.refuse_others(repr(text))
        elif (
            isinstance(found, Backend)
            and found.section is NOWHERE
            and found.servers[0].kind in {"unix", "endpoint"}
        ):
            # The operator's of the same short form has no owner.
            self.refuse_others(f"{text!r} outside of a [backend]")
        return found

    def _outcome(self, text: str) -> Outcome:
        if text in REFUSALS:
            return REFUSALS[text]
        known = self._short_needs.get(text)
        if known is not None:
            self.needs += known
            return self._short[text]
        backend = self._backend(text)
        self.needs.append((RulesReading.named_backend, text, backend))
        # A section whose name is none is wrong where it is, and means nothing to other units.
        if backend is not None and (NAME.fullmatch(text) or self.is_own(backend.section)):
            return backend
        if is_handover(text):
            return handover(text)
        if not self.unit and (refusal := self._unprovided(text)) is not None:
            self.needs.append((RulesReading._unprovided, text, refusal))
            return refusal
        try:
            short = self._in_short_form(text)
        except InvalidValueError:
            first = text.split(maxsplit=1)[0]
            if ":" in first or first.replace(".", "").isdigit():
                raise
            forms = f"the name of a backend, HOST:PORT, unix:/path, {joined([*REFUSALS])}"
            error = InvalidValueError(f"there is no [backend {text}]; write {forms}")
            usable = (
                name
                for name, [first_of_it, *_] in self.sections["backend"].items()
                if not self.is_owned(first_of_it) or self.is_own(first_of_it)
            )
            raise error.ask(word_first, text, chain(usable, REFUSALS)) from None
        self.needs.append((RulesReading._in_short_form, text, short))
        self._short_needs[text] = self.needs[-2:]
        return short

    def named_backend(self, text: str) -> Backend | None:
        return self._backend(text)

    def _unprovided(self, text: str) -> Refusal | None:
        """Return what becomes of clients as long as there is no backend of a name that a file may bring."""
        is_name = NAME.fullmatch(text) and not text.replace(".", "").isdigit()
        return Refusal.CLOSE if is_name and (self.alone or self.may_be_provided) else None

    def _in_short_form(self, text: str) -> Backend:
        before = self._short.get(text) or self._short_before.get(text)
        if before is not None:
            self._short[text] = before
            return before
        if any(name in text for name in NAMES):
            message = f"{text!r} leads wherever clients want; write a [backend] with it and 'allow_names', and its name here"
            raise InvalidValueError(message)
        words = split_words(text)
        several = len(words) > 1 and ":" in words[0].rstrip(":")
        if several or re.match(r"[^/]+:[0-9]+,", text):
            message = f"{text!r}: several servers, and options of a server, need a [backend]; write one with them, and its name here"
            raise InvalidValueError(message)
        server = endpoints.server(text, self._server_kind_of, self.settings)
        made = Backend(text, (server,), resolvers=self.settings.resolvers)
        self._short[text] = made
        return made


def _as_network_set(networks: Iterable[AnyNetworks]) -> NetworkSet:
    first, *others = found = tuple(networks)
    # A file that several keys name is stored once.
    return first if isinstance(first, NetworkSet) and not others else NetworkSet(found)


NETWORKS = ValueKind(
    RulesReading.networks, "list of networks", "list", _as_network_set, in_context=True
)
DENIED = ValueKind(RulesReading.denied, NETWORKS.shape, "list", _as_network_set, in_context=True)
REACHABLE = ValueKind(
    RulesReading.reachable, "`public` and a list of networks", "list", Reachable, in_context=True
)
OUTCOME = ValueKind(RulesReading.outcome, "[outcome](#outcomes)", in_context=True)
RESOLVERS = ValueKind(
    endpoints.name_server,
    "list of `ADDRESS` or `ADDRESS:PORT`",
    "list",
    lambda servers: tuple(dict.fromkeys(servers)),
)
PATH = ValueKind(
    lambda reading, text: reading.home / file_path(text), "path", in_context=True, paths=one_path
)
PEM = ValueKind(RulesReading.pem, "path", in_context=True, paths=one_path)
SECRET = ValueKind(RulesReading.secret, "path", in_context=True, paths=one_path)
PEMS = ValueKind(RulesReading.pem, "list of paths", "list", in_context=True, paths=tuple)

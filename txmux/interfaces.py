"""The contracts with plugins: what a matcher is, which recognises a protocol, and what a provider is, which writes rules.

A matcher is found by Twisted's plugin system (a module in ``twisted/plugins/`` that holds an instance
which provides `IProtocolMatcher`). It is asked once for each ``match =`` line of a rules file, and gives a
*predicate* for it. Predicates are asked whenever a client has sent more bytes, or another datagram, until one of
them decides.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from twisted.plugin import IPlugin
from zope.interface import Attribute

from txmux.classes import frozen
from txmux.transport import Transport

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = [
    "MOST_DATAGRAMS", "Converses", "Datagrams", "Exchange", "IProtocolMatcher", "IProvider",
    "Learns", "NameKey", "Narrows", "Option", "Peeked", "Predicate", "ProvidedObject", "RulesWriter",
    "Transport", "Verdict",
]  # fmt: skip

T = TypeVar("T")

MOST_DATAGRAMS = 4
"""No predicate sees more datagrams of a flow than these."""

_NOTHING: dict[Callable[..., Any], Any] = {}


class Verdict(enum.Enum):
    """What a predicate says of the first bytes of a stream."""

    MATCH = "match"
    NO = "no"
    NEED_MORE = "need more"


class Peeked:
    """The first bytes of a client's stream, as far as they have come; never changed once made.

    Args:
        data: The bytes.
        earlier: The shorter prefix of the same stream that came before this one, if any:
            what was parsed there need not be parsed again.
    """

    __slots__ = ("_earlier", "_parsed", "data")

    data: bytes

    def __init__(self, data: bytes, earlier: Peeked | None = None) -> None:
        self.data = data
        self._parsed: dict[Callable[..., Any], Any] = {}
        if earlier is None:
            self._earlier = _NOTHING
            return
        # A client may send byte by byte, so nothing is copied that can be shared.
        found = earlier._parsed
        for parser in earlier._earlier:
            if parser not in found:
                found = {**earlier._earlier, **found}
                break
        self._earlier = found

    def __bytes__(self) -> bytes:
        return self.data

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return f"<Peeked {len(self.data)} bytes>"

    def startswith(self, prefix: bytes) -> bool:
        """Return whether the stream begins with `prefix`."""
        return self.data.startswith(prefix)

    def parsed(self, parser: Callable[[bytes, T | None], T]) -> T:
        """Run a parser over these bytes, once for all who ask.

        Args:
            parser: A pure function of the bytes so far and of its own last result for a shorter prefix of the
                same stream (``None`` at first), from which it may continue instead of beginning again. Its answer
                must be the same as if it had begun again.

        Returns:
            What the parser returned, the same object for every caller with these bytes.
        """
        known = self._parsed
        if parser not in known:
            known[parser] = parser(self.data, self._earlier.get(parser))
        result: T = known[parser]
        return result


class Datagrams(Peeked):
    """The first datagrams of a client's flow, as far as they have come; never changed once made.

    What `Peeked` has is about the first datagram, which is whole: no byte of it will come later.

    Args:
        datagrams: In the order in which they came, at least one. Any of them may be empty.
        earlier: Fewer datagrams of the same flow that were seen before, if any.

    Attributes:
        data: The first datagram.
        datagrams: All of them.
    """

    __slots__ = ("_parsed_all", "datagrams")

    datagrams: tuple[bytes, ...]

    def __init__(self, datagrams: tuple[bytes, ...], earlier: Datagrams | None = None) -> None:
        super().__init__(datagrams[0])
        self.datagrams = datagrams
        self._parsed_all: dict[Callable[..., Any], tuple[int, Any]] = {}
        if earlier is not None:
            # The first datagram is the same, so what was parsed in it holds.
            self._parsed.update(earlier._parsed)
            self._parsed_all.update(earlier._parsed_all)

    def __repr__(self) -> str:
        return f"<Datagrams of {', '.join(str(len(one)) for one in self.datagrams)} bytes>"

    def parsed_all(self, parser: Callable[[tuple[bytes, ...], T | None], T]) -> T:
        """Run a parser over all datagrams, once for all who ask.

        Args:
            parser: A pure function of the datagrams so far and of its own last result for fewer datagrams of the same
                flow (``None`` at first), from which it may continue. Its answer must be the same as if it had begun again.

        Returns:
            What the parser returned, the same object for every caller with these datagrams.
        """
        count, result = self._parsed_all.get(parser, (0, None))
        if count < len(self.datagrams):
            result = parser(self.datagrams, result)
            self._parsed_all[parser] = len(self.datagrams), result
        found: T = result
        return found

    def preset(self, parser: Callable[[tuple[bytes, ...], T | None], T], result: T) -> None:
        """Make `parsed_all` return this for a parser, as its bytes came in other datagrams."""
        self._parsed_all[parser] = len(self.datagrams), result


class Predicate(Protocol):
    """One configured question to the first bytes of a stream: immutable, and a pure function.

    The contract:

    - *monotone*: once ``MATCH`` or ``NO`` for some bytes, it stays so for every continuation of them;
    - *early*: ``NO`` at the first byte that rules the protocol out;
    - *bounded*: never ``NEED_MORE`` once it has seen `longest` bytes;
    - it never raises, whatever the bytes, and it never keeps them.

    It is never asked before the first byte is there; a datagram may be empty.

    For UDP the same holds of the first datagrams of a flow. It is asked about `Datagrams`, and counts them instead of
    bytes: a datagram never grows, so only protocols whose first message spans several may say ``NEED_MORE``.
    """

    @property
    def longest(self) -> int:
        """It never needs more bytes than this; for UDP, more datagrams, of which it gets at most `MOST_DATAGRAMS`."""
        ...

    def __call__(self, peeked: Any, /) -> Verdict:
        """Judge these bytes, a `Peeked`; for UDP, these `Datagrams`."""
        ...


class Learns(Protocol):
    """A predicate that can also tell what it saw, for the access log; optional."""

    def learnt(self, peeked: Any, /) -> Mapping[str, str]:
        """Return the facts (``sni``, ``host``, …) that are in the bytes so far.

        Asked once the decision is made, of one predicate of each kind up to the winning route: those of a class whose method
        this is are of one kind, and so are those that give the same function here.
        """
        ...


@frozen
class Exchange:
    """A request that a client begins with, and the answer that it waits for.

    Attributes:
        request: What the client says.
        answer: What txmux sends.
        repeat: Whether the server is asked the same, before anything else of the client's, and has to give the same
            answer, which the client does not get twice. Otherwise it never hears of the request.
    """

    request: bytes
    answer: bytes
    repeat: bool


class Converses(Protocol):
    """A predicate that has to have a client answered, to see what it says then; optional.

    Such an answer commits the server that gets the client. So it is given only while the route with this
    predicate can still win, and no route before it matches; and at the same byte, however the network cut the stream.
    """

    @property
    def exchanges(self) -> Callable[[Peeked], Sequence[Exchange]]:
        """Gives the requests with which some bytes begin, one right behind the other, as far as they are whole.

        More bytes of a stream only add some at the end. The same function for all predicates that see the same.
        """
        ...


@frozen
class NameKey:
    """The name that a predicate depends on, which picks one of thousands of routes in one look-up.

    A predicate with a key says ``NO`` to every stream whose name is neither in `exact` nor below one of `under`.

    Attributes:
        read: Gives the name in its normal form: empty if the stream has none, ``None`` while it is not known. The
            same function for all predicates that depend on the same name. It gets what the predicate gets.
        exact: Names.
        under: ``example.com`` for every name that ends in ``.example.com``.
        begun: Gives how the name begins, in its normal form, while `read` gives ``None``; empty if that is not known, either.
            With it, and without `under`, the predicate says ``NO`` as soon as no name in `exact` begins so.
    """

    read: Callable[[Any], str | None]
    exact: frozenset[str] = frozenset()
    under: frozenset[str] = frozenset()
    begun: Callable[[Any], str] | None = None


class Narrows(Protocol):
    """A predicate that tells beforehand which streams it cannot match, so that it is not asked about them; optional."""

    @property
    def first_bytes(self) -> frozenset[int] | None:
        """It says ``NO`` to every stream that begins with another byte; ``None`` is any byte."""
        ...

    @property
    def key(self) -> NameKey | None:
        """The name it depends on, if there is one."""
        ...


class Guards(Protocol):
    """A predicate for UDP whose protocol has datagrams that servers drop, and a message that a client can send again, changed; optional."""

    @property
    def drops(self) -> Callable[[Datagrams], bool] | None:
        """Returns whether servers drop the last datagram. Then it is as if it had not come, and no server gets it.

        The predicate is undecided while only such datagrams have come. The same function for all predicates that see the same.
        """
        ...

    @property
    def guard(self) -> Callable[[Datagrams], Any] | None:
        """Makes what judges the later datagrams of a flow, if the predicate depends on that message; as `drops`, the same function."""
        ...


@frozen
class Option:
    """An option that a matcher understands, as ``name=value`` in a ``match =`` line.

    Attributes:
        name: The word before ``=``.
        meaning: One line that says what it selects.
        example: A value that works.
        kind: What its patterns are compared with, so that ``txmux check`` can warn of those that fit nothing; empty is
            anything. A ``domain`` is a host that may have any character, a ``protocol`` one of ALPN, ``software`` that of SSH.
        widens: Whether a matcher takes clients with it that it does not take without.
        needs: The bytes that clients often send before its value is known; 0 is a few.
    """

    name: str
    meaning: str
    example: str
    kind: Literal["", "host", "domain", "path", "protocol", "software"] = ""
    widens: bool = False
    needs: int = 0


class IProtocolMatcher(IPlugin):
    """A protocol that txmux can recognise. One instance serves the whole process, so it holds no state.

    Two more attributes are optional. ``transports`` is a collection of `Transport`; a matcher without it is for TCP only.
    A matcher for both has its `predicate` asked about the first datagram, too, which then is whole: what is undecided
    there is a no. Where the two differ, a method ``datagram_predicate`` gives the predicate for UDP; it takes and raises
    what `predicate` does. The `predicate` of a matcher for UDP only is asked about `Datagrams`.
    """

    name: str = Attribute("The word after ``match =``: lower-case letters, digits and ``-``.")
    summary: str = Attribute("One line that says what is recognised.")
    options: tuple[Option, ...] = Attribute(
        "The options it understands; any other is an error in the file."
    )

    def predicate(options: Mapping[str, str]) -> Predicate:  # noqa: N805
        """Make the predicate for one ``match =`` line. Called while the rules are read.

        Args:
            options: The options of that line as written; only names that `options` lists.

        Raises:
            OptionError: A value that cannot be used, or a missing option. The user sees it with file and line.
        """


@frozen
class ProvidedObject:
    """An object of the system that a provider watches, such as a container.

    Attributes:
        name: What it is called in the log and in the comments of the file.
        text: Its sections, as in a rules file; empty if it has none.
        problem: Why it is left out; empty if it is not.
        warning: What is suspicious in what it has, though that is served.
        unit: The name of the unit that its sections belong to, of letters, digits, ``.``, ``_`` and ``-``: objects of one unit
            follow each other. Those without one come first, and belong to the file.
        refusing: What it has instead of `text` if that is left out for its problem: sections that keep its place, and refuse its clients.
            These stay where a file is too large; what does nothing else has the same as `text`.
    """

    name: str
    text: str = ""
    problem: str = ""
    unit: str = ""
    warning: str = ""
    refusing: str = ""


class RulesWriter(Protocol):
    """What a provider writes by. Errors of its file are errors of objects: those are left out, and the others are served."""

    def write(
        self,
        objects: Callable[[Any], Sequence[ProvidedObject]],
        served: Callable[[Sequence[ProvidedObject], str], object] = lambda *_: None,
        failing: str = "",
        /,
    ) -> None:
        """Write the file soon: at most once a second, and always the newest state.

        Args:
            objects: Gives all objects, in the order of their routes. It gets the `Rules` of the service without
                those of this file.
            served: Gets the objects each time when they are written and the service has been asked to take them over: those that
                are left out have a `problem`, and at most the text `refusing`. With them comes why the service may not have them yet; empty if it has.
            failing: What of the source cannot be read, and why, while the rest is up to date; `sources` of the service say so.
        """

    def lost(self, why: str, /) -> None:
        """Report that the source does not answer; the last file stays, and `sources` of the service say so. The next `write` ends that."""

    def ask(self, method: str, path: str, body: object = None, /) -> Awaitable[Any]:
        """Ask the running service, as its API takes it; raises `MuxError` if it gives no whole answer."""


class IProvider(IPlugin):
    """A program beside the service that watches another system, and writes a rules file: ``txmux provider NAME``.

    One more attribute is optional. ``listen_keys`` is a collection of the keys that ``[listen]`` sections of its objects may have;
    without it, an object with such a section is left out.
    """

    name: str = Attribute("The word after ``txmux provider``.")
    summary: str = Attribute("One line that says what it watches.")

    def options(parser: ArgumentParser) -> None:  # noqa: N805
        """Add the options of its own."""

    async def run(reactor: Any, arguments: Namespace, writer: RulesWriter) -> None:  # noqa: N805
        """Watch and write, until this is cancelled.

        Raises:
            MuxError: It cannot begin; the message says what to change, and the program ends.
        """

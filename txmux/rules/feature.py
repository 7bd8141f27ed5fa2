"""What a capability adds to the core: plain values, of which the core asks for what it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

import attrs

from txmux.classes import frozen

if TYPE_CHECKING:  # a command does without them
    from pathlib import Path

    from txmux.interfaces import IProvider
    from txmux.rules.model import (
        Backend,
        DynamicNetworks,
        Listener,
        Route,
        Rules,
        Section,
        Server,
        Settings,
    )
    from txmux.rules.problems import Problem
    from txmux.rules.reading.endpoints import ServerKind
    from txmux.rules.reading.values import SectionKey

    FindProblems = Callable[[Rules], Iterable[Problem]]
    FindContradictions = Callable[[Section, Mapping[str, Any]], Iterator[Problem]]
    FindConflicts = Callable[
        [Sequence[Listener], Sequence[Route], Settings, Mapping[int, str]], Iterator[Problem]
    ]

SectionKind = Literal["txmux", "listen", "route", "backend"]
Finding = Literal["lint", "check", "start", "secrets"]

FILE_SECONDS = 4.0
"""Seconds between two checks of a file: a change takes effect within 10 s, also in a busy worker."""

FILE_MEANWHILE = "its previous contents stay in use; correct it"
"""What holds while a file cannot be used."""


class NetworkSource(Protocol):
    """Where networks come from that change while the rules hold."""

    trouble: str
    """Why the networks are out of date; empty if they are not."""

    def fetch_changes(self) -> Awaitable[Any]:
        """Return the new contents for all processes; ``None`` if nothing has changed."""


@frozen
class WatchedSource:
    """A source that one process asks for all; one with another `what` replaces that of its name.

    Attributes:
        name: The feature's, a colon, and where it is.
    """

    name: str
    what: object
    make: Callable[[], NetworkSource]


class NetworkReader(Protocol):
    """What each process reads for itself to know which addresses are in some networks.

    Attributes:
        trouble: Why something is not in use; empty if all is.
    """

    trouble: str

    def prepare(self, settings: Settings, *, may_lack: bool) -> None:
        """Read what rules with these settings name; what cannot be read is a `RulesError`, unless it `may_lack`."""

    def serve(self, networks: DynamicNetworks) -> None: ...

    async def read_again(self) -> None:
        """Read the same again, since a source has something new. If that is bad, nothing changes."""


@frozen
class NetworkKind:
    """Networks that rules name as ``WORD:TEXT``.

    Attributes:
        words: How they may begin.
        read: Reads ``WORD:TEXT`` with the settings, and with whether a file is read ``alone``, so that these are unknown; raises `InvalidValueError`.
        sources: Yields what one process asks for all, from the reactor, what was read, and the settings.
        reader: Makes what each process reads for itself, if its sources only say that there is something new.
        seconds: How often the sources are asked.
        meanwhile: What holds while one has no good answer.
        not_allowed: Why they cannot be in ``allow`` and the like; empty if they can be.
        secret: The key of [txmux] that names the secret for all of their sources; empty if there is none.
    """

    words: tuple[str, ...]
    read: Callable[..., DynamicNetworks]
    sources: Callable[[Any, DynamicNetworks, Settings], Iterable[WatchedSource]]
    reader: Callable[[], NetworkReader] | None
    seconds: float
    meanwhile: str
    not_allowed: str = ""
    secret: str = ""


@frozen
class ServerStart:
    """What starts the servers of a backend; `text` says it in a log.

    `send` is called with the reactor, and raises `OSError` or `MuxError`.
    """

    text: str
    send: Callable[[Any], Awaitable[None]]


@frozen
class HelloOpenings:
    """What opens inner hellos of clients, by what a key of ``[listen]`` names.

    Attributes:
        key: The key, whose value is a path.
        option: What the option of `txmux explain` of that name does.
        make: Returns a `txmux.client.configuration.HelloOpening` that is a `txmux.net.watched.WatchedFiles`, by the path and the clock,
            by whether files ``may_lack``, and by the ``section`` that names them; raises `TLSFileError`.
    """

    key: str
    option: str
    make: Callable[..., Any]


class StageMaker:
    """Makes the stages of clients, for one listener or route in a process.

    Attributes:
        asks_by: How clients begin who ask for what the route opens.
        answers: Rows as `txmux.tcp.answers` has them, for clients that it would be open for, had they asked.
    """

    asks_by = b""
    answers: Any = ()

    def __call__(self, client: Any, then: Any, *of: Any) -> Any:
        """Make a stage of a client.

        Args:
            client: The `txmux.tcp.stage.Client`.
            then: What follows otherwise: a stage, or an outcome.
            of: For a route, the layer that it is of, and the `CompiledRoute`.
        """
        raise NotImplementedError


@frozen
class FeatureStage:
    """A stage of connections that clients pass by a key: of their listener, once they are admitted, or of their route, once that is decided.

    Attributes:
        state: Its name in the API.
        key: The key. A value that is false is as good as none. ``match`` is for clients of layers with routes that `cancels_apart`: the maker makes a
            stage, or ``None``, before their route is obeyed.
        maker: As ``module:class``: called with the listener or the route, it returns a `StageMaker`.
        then: The stages and choices that may follow. A client that is turned away, or leaves, never needs to be among them.
        waits_for: What its clients wait for, for the reference, in Markdown.
        seen: For `txmux explain`. By the value of a listener's key, and a `TracedSample`, it returns what the routes see of that. By a route, the
            bytes, and a function that returns whether others are for this route, too: the facts, and the bytes inside; ``None`` if it is not opened.
            For ``match``, by the routes that may be meant, the default, the bytes, a function for routes that end TLS, and the client: all servers.
    """

    state: str
    key: str
    maker: str
    then: tuple[str, ...]
    waits_for: str
    seen: Callable[..., Any] | None = None


class ServerDialler(Protocol):
    """Connects to the servers of one backend through its `ForwardProxy`.

    Attributes:
        text: The proxy, for messages.
    """

    text: str

    def dial(
        self,
        dialler: Any,
        server: Server,
        factory: Any,
        timeout: float,
        on_open: Callable[[Any], object],
    ) -> Callable[[], None]:
        """Start to open a connection as `txmux.backends.connect.dial.Dialler.dial` does, and by it.

        ``on_open`` is called with the transport of a connection before anything is sent.
        """


@frozen
class ManagedCertificates:
    """Certificates that a feature gets and renews: ``terminate_tls = WORD``, also with names behind it.

    Attributes:
        meaning: The word, for the reference, in Markdown.
        key: The key of `folder`.
        read: Reads a name behind the word, or nothing there; raises `InvalidValueError`.
        names: Returns the names of a route, from its section and what was read.
        problems: Finds what is wrong in a section with nothing behind the word.
        folder: Returns where their files are, by the settings; the service makes these.
        file: Returns the file of a name in there.
        order: Returns, for the settings and all routes, what gives of a route what has to be the same for all that name it.
    """

    word: str
    meaning: str
    key: str
    read: Callable[[str], str]
    names: Callable[[Section, Sequence[str]], tuple[str, ...]]
    problems: Callable[[Section], Iterator[Problem]]
    folder: Callable[[Settings], Path]
    file: Callable[[Path, str], Path]
    order: Callable[[Settings, Sequence[Route]], Callable[[Route], object]]


@frozen
class Feature:
    """One optional capability.

    Attributes:
        name: That of its folder, and of the part in messages.
        keys: Its keys, by the kind of section. Their values are in `more` of the model.
        hints: What to do about keys that are none, by the kind of section; see `KEY_HINTS`.
        contradictions: By the kind of section, finds values that are right by themselves, but not together; see those of the core.
        conflicts: Each finds what does not go together in all listeners and routes, by the settings and the units of sections, by their identities.
        stages: Those of its clients' connections.
        connecting: What connects by its keys of ``[backend]`` whose values are a `ForwardProxy`, as ``module:class``: called with that, what returns the addresses of
            its server, and what returns the password for it, it returns a `ServerDialler`.
        inside: What watches the clients that speak a protocol inside TLS that ends here, by its name in ALPN, as ``module:name``. It is called with the `txmux.tcp.stage.Client`,
            with its hello, and with the layers by which that was decided, and by which its requests are.
        networks: Those that rules may name by it; they are `DynamicNetworks` of its name.
        servers: Those that rules may name by it.
        finds: What finds problems of rules: ``lint`` warnings; ``check`` those of the files that rules name, for `txmux check`; ``start`` what a
            start would refuse, or as warnings what it would do without, by files; ``secrets`` what lets others read secrets beside files.
        tries: Finds what is wrong with the servers of rules, which are good and were tried, for `txmux check --connect`; it gets the reactor, too.
        openings: What opens inner hellos of clients by it.
        rows: Returns what it measures and reports: a `CounterRow` with its `group`, a `Gauge` with its `name`, an `AddedField` of a document, an `AttentionRow`.
        certificates: Those that it gets and renews; one feature can have them.
        needed: Returns whether rules need its parts.
        part: Makes what one process keeps for the whole service: a `txmux.client.parts.ServicePart` by a `ServiceContext`, or ``None``.
        serving_part: Makes what each process keeps that serves clients: a `ServingPart` by a `ServingContext`, or ``None``.
        sources: The kinds of what its parts ask of others, as `Source` has them.
        start_of: Returns what starts the servers of a backend while clients wait for them; ``None`` if it cannot.
        captured: Reads what clients said first in a capture, from its file and name, and the most bytes of each; see `txmux.rules.tracing.TracedSample`.
        providers: Returns the `txmux.interfaces.IProvider`s that `txmux provider` has by it.
        resources: Returns the `txmux.admin.resource.Resource`s that the endpoint ``admin`` has by it.
        commands: Those of the program, and what each does; each is a module of its name in the folder, as `txmux.cli` has them.
    """

    name: str
    keys: Mapping[SectionKind, Mapping[str, SectionKey]] = attrs.field(factory=dict)
    hints: Mapping[SectionKind, Mapping[str, str]] = attrs.field(factory=dict)
    contradictions: Mapping[SectionKind, FindContradictions] = attrs.field(factory=dict)
    conflicts: Sequence[FindConflicts] = ()
    stages: Sequence[FeatureStage] = ()
    connecting: Mapping[str, str] = attrs.field(factory=dict)
    inside: Mapping[str, str] = attrs.field(factory=dict)
    networks: NetworkKind | None = None
    servers: ServerKind | None = None
    finds: Mapping[Finding, Sequence[FindProblems]] = attrs.field(factory=dict)
    tries: Callable[[Rules, Any], Awaitable[Sequence[Problem]]] | None = None
    openings: HelloOpenings | None = None
    rows: Callable[[], Sequence[object]] = tuple
    start_of: Callable[[Backend], ServerStart | None] = lambda _: None
    captured: Callable[[BinaryIO, str, int], Sequence[Any]] | None = None
    providers: Callable[[], Sequence[IProvider]] = tuple
    resources: Callable[[], Sequence[Any]] = tuple
    commands: Mapping[str, str] = attrs.field(factory=dict)
    certificates: ManagedCertificates | None = None
    needed: Callable[[Rules], bool] = lambda _: False
    part: Callable[[Any], Any] = lambda _: None
    serving_part: Callable[[Any], Any] = lambda _: None
    sources: Sequence[str] = ()

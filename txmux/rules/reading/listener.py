"""The section ``[listen NAME]``: endpoints, admission, and detection."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from txmux.rules.model import (
    AnyNetworks,
    Clients,
    Keepalive,
    Listener,
    NetworkSet,
    Section,
    Senders,
    Silence,
    UnixClients,
)
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading import endpoints, values
from txmux.rules.reading.context import DENIED, NETWORKS, OUTCOME, RulesReading
from txmux.rules.reading.endpointstrings import SERVER, is_for_datagrams
from txmux.rules.reading.values import (
    BOOLEAN,
    CONNECTIONS,
    DURATION,
    LINUX_ONLY,
    LOG,
    KeyFiles,
    SectionKey,
    ValueKind,
    amount,
    read_options,
    with_defaults,
    words,
)

_LONGEST_QUIET, _MOST_QUESTIONS = 32767, 127  # tcp(7), MAX_TCP_KEEPIDLE and the like of Linux


def make_listener(name: str, section: Section, found: Mapping[str, Any]) -> Listener:
    fields = dict(found)
    clients = Clients(fields.pop("allow", None), fields.pop("deny", None))
    return Listener(name, clients=clients, section=section, **fields)


def _sender(reading: RulesReading, text: str) -> AnyNetworks | UnixClients:
    return UnixClients.UNIX if text == UnixClients.UNIX.value else reading.networks(text)


def _silence(reading: RulesReading, text: str) -> Silence:
    """Read ``OUTCOME [from=NETWORKS] [after=DURATION]``."""
    place, *rest = text.split(None, 1)
    messages: list[str] = []
    options: dict[str, Any] = {}
    try:
        outcome = reading.outcome(place)
    except InvalidValueError as error:
        messages += error.messages
    readers = {"from": lambda value: _networks(reading, value), "after": values.positive_duration}
    try:
        options = read_options(values.split_words("".join(rest)), readers, of="a line of 'silent'")
    except InvalidValueError as error:
        messages += error.messages
    if messages:
        raise InvalidValueError(*messages)
    return Silence(outcome, Clients(options.get("from")), options.get("after"))


def _networks(reading: RulesReading, text: str) -> NetworkSet:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InvalidValueError("names no network; write for example from=10.0.0.0/8")
    return NetworkSet(reading.networks(part) for part in parts)


def _keepalive(text: str) -> Keepalive | None:
    if text.isdecimal() and text not in {"0", "1"}:
        raise InvalidValueError(f"must be yes or no, not {text!r}; did you mean 'idle={text}s'?")
    if "=" not in text:
        return Keepalive() if values.boolean(text) else None
    readers = {
        "idle": _seconds,
        "interval": _seconds,
        "count": values.whole_number(1, _MOST_QUESTIONS),
    }
    return Keepalive(**read_options(values.split_words(text), readers, of="keepalive"))


def _seconds(text: str) -> int:
    seconds = values.duration(text, values.SECONDS_FORMS)
    if not 0 < seconds <= _LONGEST_QUIET or seconds != int(seconds):
        raise InvalidValueError(f"must be whole seconds, {_LONGEST_QUIET}s at most, not {text!r}")
    return int(seconds)


def _modules_of(endpoints: Iterable[str]) -> Iterator[str]:
    if any(map(is_for_datagrams, endpoints)):
        yield "txmux.serving.udp_listening_port"


_ENDPOINT = ValueKind(
    endpoints.listening,
    "one a line",
    "lines",
    paths=lambda texts: [
        path for text in texts for path in endpoints.files_of(SERVER, text).values()
    ],
)
_PEEK = amount(1, 1024**2)
_SENDERS = ValueKind(_sender, "list of networks, and `unix`", "list", Senders, in_context=True)
_KEEPALIVE = ValueKind(_keepalive, "`yes`, `no`, or `idle=` `interval=` `count=` in any order")
_SILENT = ValueKind(
    _silence,
    "[outcome](#outcomes) `[from=NETWORKS]` `[after=DURATION]`, one a line",
    "lines",
    in_context=True,
)
_UNITS = ValueKind(str.strip, "list of patterns", "list", tuple)
_CONNECTION_RATE = ValueKind(values.connection_rate, "rate of connections")

# fmt: off
KEYS: Mapping[str, SectionKey] = with_defaults(Listener(""), {
    "endpoint": SectionKey(_ENDPOINT, example=":443", field="endpoints", required=True, files=KeyFiles("worker-itself", is_secret=True), loads=_modules_of, meaning=
        "txmux listens [here](#where-to-listen)"),
    "detect_timeout": SectionKey(DURATION, meaning=
        "a client has to be recognised within this time from accept; by default [`3s`](#when-the-server-speaks-first) where `silent` names a server"),
    "peek_limit": SectionKey(_PEEK, meaning=
        "at most this many bytes are inspected"),
    "first": SectionKey(words("client", "server"), streams_only="works only over TCP: with datagrams the client always speaks first; remove it", meaning=
        "with `server`, [the server speaks first](#when-the-server-speaks-first): every client goes to `default` at once"),
    "silent": SectionKey(_SILENT, example="127.0.0.1:3306 from=10.0.0.0/8 after=500ms", streams_only="a datagram is a whole message, so no client is silent; remove it", meaning=
        "a client that has sent nothing within `detect_timeout` goes here, by the [first line that fits](#when-the-server-speaks-first); without one, `close`"),
    "default": SectionKey(OUTCOME, meaning=
        "a client that has sent something but matches no route goes here"),
    "routes_from": SectionKey(_UNITS, example="docker, team-*.ini", meaning=
        "routes of these [units](#units), by patterns of their files or names, may be [under this listener](#scope)"),
    "accept_proxy_from": SectionKey(_SENDERS, example="10.0.0.1", meaning=
        "connections from these sources must begin with a [PROXY protocol header](#proxy-protocol-headers-from-proxies-in-front)"),
    "proxy_timeout": SectionKey(DURATION, streams_only="works only over TCP: a PROXY header is in the datagram itself; remove it", meaning=
        "that header has to come within this time from accept"),
    "allow": SectionKey(NETWORKS, example="10.0.0.0/8", meaning=
        "if given, only clients from these networks may connect"),
    "deny": SectionKey(DENIED, example="10.0.0.0/8", meaning=
        "clients from these networks may not connect, even if `allow` names them"),
    "end_denied": SectionKey(BOOLEAN, meaning=
        "with `yes`, connections and flows end when a ban, a changed list of networks or changed rules deny their clients. Otherwise a ban ends only those that [have no server yet](commands.md#txmux-ban)"),
    "max_connections": SectionKey(CONNECTIONS, example="10000", streams_only="works only over TCP; write max_flows", meaning=
        "this listener has at most this many connections, `0` for no limit. Further clients are closed"),
    "max_connections_per_source": SectionKey(CONNECTIONS, example="100", streams_only="works only over TCP; write max_flows_per_source", meaning=
        "each [source](#sources) has at most this many"),
    "max_undecided_per_source": SectionKey(CONNECTIONS, example="20", streams_only="works only over TCP; write max_flows_per_source", meaning=
        "the same for connections not recognised yet"),
    "connection_rate_per_source": SectionKey(_CONNECTION_RATE, example="20/s burst=40", meaning=
        "each [source](#sources) may connect at this rate: `20/s burst=40`"),
    "keepalive": SectionKey(_KEEPALIVE, default="yes", example="idle=60s interval=20s count=3", streams_only="works only over TCP; remove it", meaning=
        "TCP probes a peer that has been quiet for `idle=`, again every `interval=`; `count=` probes without an answer break the connection. `yes` means `idle=60s interval=15s count=4`, also the defaults for missing words. On Linux, bytes unacknowledged for that long break it, too. A peer that does not read stays connected"),
    "freebind": SectionKey(LINUX_ONLY, meaning=
        "txmux may listen on an IP address that this machine does not have (yet), on Linux only"),
    "mptcp": SectionKey(LINUX_ONLY, streams_only="works only over TCP; remove it", meaning=
        "clients may use [Multipath TCP](#multipath-tcp), on Linux only"),
    "capture": SectionKey(BOOLEAN, meaning=
        "[`/api/recent`](admin-api.md#recent) keeps the first 64 bytes of clients that no route takes"),
    "log": SectionKey(LOG, meaning=
        "these connections are in the [access log](access-log.md). `errors` leaves out `done`, `handed-over`, and clients that left without a byte, such as a balancer's checks"),
    "tls_strict": SectionKey(BOOLEAN, streams_only="works only over TCP; remove it", meaning=
        "with `yes`, a client of [terminated TLS](#tls-termination) that closes without a close-notify counts as broken off"),
    "max_flows": SectionKey(CONNECTIONS, example="10000", datagrams_only=True, meaning=
        "a UDP listener has at most this many flows. Beyond, the longest quiet unanswered one makes room, or the new one is refused. Without the key, all UDP listeners share 70 % of the process's descriptors: the one with most unanswered flows makes room, and one with less than an equal part may have some more; `0` means no limit but these"),
    "max_flows_per_source": SectionKey(CONNECTIONS, example="100", datagrams_only=True, meaning=
        "each [source](#sources) has at most this many flows of UDP, `0` for no limit"),
})
# fmt: on
"""The keys of ``[listen NAME]``."""

"""`txmux explain`: shows the verdict of each route on given bytes or on a live connection, and the route that wins."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from txmux.cli._output import Output
from txmux.cli.remote import command
from txmux.errors import MuxError, OptionError, joined
from txmux.interfaces import Transport
from txmux.matchers.payload import bytes_from_hex, bytes_from_text
from txmux.net.tls.client_hello import client_hello
from txmux.rules import optional
from txmux.rules.advice.words import did_you_mean
from txmux.rules.changes import described_untaken
from txmux.rules.installed import OPENINGS
from txmux.rules.model import (
    NO_CERTIFICATE,
    REVOKED,
    FoundCertificate,
    Listener,
    Route,
    Rules,
    TlsSettings,
)
from txmux.rules.reading.conflicts import comes_to
from txmux.rules.reading.parser import load
from txmux.rules.tracing import TracedSample, Tracer, as_json, inner_listener, seen_by
from txmux.telemetry.explanation import (
    EXPLANATION_COLUMNS,
    Explanation,
    explained_connection,
    explained_layers,
    folded_routes,
    taken_by,
)
from txmux.telemetry.formatting import plural, printable_json

if TYPE_CHECKING:
    from txmux.client.configuration import HelloOpening
    from txmux.processes.worker.sandbox import Sandbox

_LONGEST_DATAGRAM = 65535
_PCAP = "txmux explain --pcap"
_OPENINGS = {kind.key: "--" + kind.key.replace("_", "-") for kind in OPENINGS}
_FOR_BYTES = "listener", "client", "inside", *_OPENINGS

_MOST_ROWS = 50  # of a capture, before the routes that say no are folded
_FOLDED = {"no": "said no", "not asked": "not asked"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rules_file", metavar="FILE", nargs="?", help="a rules file; with --connection, that of the service")  # fmt: skip
    sources = parser.add_mutually_exclusive_group(required=True)
    again = "; again for each further datagram of a flow"
    # fmt: off
    sources.add_argument("--text", metavar="TEXT", action="append", help=rf"the bytes as text, with \r \n \t \0 \\ and \xNN{again}")
    sources.add_argument("--hex", metavar="HEX", action="append", help=f"the bytes as pairs of hex digits{again}")
    sources.add_argument("--file", metavar="PATH", action="append", help=f"a file with the bytes; - is standard input{again}")
    sources.add_argument("--pcap", metavar="PATH", help="a capture: what the client of each TCP connection and of each UDP flow said first")
    sources.add_argument("--connection", metavar="ID", help="the ID of a live connection, as 'txmux connections' lists it")
    parser.add_argument("--sni", metavar="NAME", help="in place of bytes: a TLS client that asks for this name")
    parser.add_argument("--alpn", metavar="PROTOCOLS", help="in place of bytes: a TLS client that offers these, as h2,http/1.1; may be beside --sni")
    parser.add_argument("--all", action="store_true", help="with --pcap: also list the routes that say no, where there are many")
    parser.add_argument("--listener", metavar="NAME", help="only for this listener")
    parser.add_argument("--from", metavar="ADDRESS", dest="client", type=_address, help="the client's IP address; with --pcap by default the one in the capture")
    parser.add_argument("--at", metavar="TIME", dest="now", type=_timestamp, help="the time for 'during': 2026-11-20T14:30 here or 2026-11-20T14:30+00:00; by default now")
    parser.add_argument("--inside", metavar="ROUTE", help="the bytes are what is inside the TLS that this route terminates")
    parser.add_argument("--client-cert", metavar="CERT", help="with --inside, for 'client_cert': a PEM file with the client's certificate, or revoked, or none, as by default")
    # fmt: on
    for kind in OPENINGS:
        parser.add_argument(_OPENINGS[kind.key], metavar="PATH", type=Path, help=kind.option)
    command.configure(parser, seconds=10)
    parser.usage = parser.format_usage().removeprefix("usage: ").strip()
    sources.required = False  # `_usage_error` says more


def run(arguments: argparse.Namespace) -> int:
    wrong = _usage_error(arguments)
    if wrong:
        print(f"txmux: {wrong}", file=sys.stderr)
        return command.USAGE
    if arguments.connection is not None:
        return _explain_connection(arguments)
    rules = load(arguments.rules_file)
    for line in described_untaken(rules):
        print(f"warning: {line}", file=sys.stderr)
    listeners = _listeners(rules, arguments.listener)
    listeners, end, certificate = _listeners_inside(rules, listeners, arguments)
    tracer = Tracer(rules, _opening(arguments))
    samples = _samples(arguments, listeners, rules.settings.sandbox)
    traces = [
        (seen, [tracer.trace(listener, seen, end, certificate) for listener in group])
        for sample in samples
        for seen, group in seen_by(
            _of_transport(listeners, sample), sample, is_inner=end is not None
        )
    ]
    document = as_json(arguments.rules_file, traces)
    if arguments.json:
        print(printable_json(document, partial(json.dumps, indent=2)))
    else:
        _write(arguments, listeners, document["streams"])
    return 0


def _write(
    arguments: argparse.Namespace,
    listeners: tuple[Listener, ...],
    streams: Sequence[Mapping[str, Any]],
) -> None:
    output, is_capture = Output(), arguments.pcap is not None
    traces = [(stream, trace) for stream in streams for trace in stream["listeners"]]
    if not traces:
        output.line(f"{arguments.pcap}: {_no_traffic(listeners)} in it")
    rows = sum(len(trace["routes"]) for _, trace in traces)
    folded = _FOLDED if is_capture and rows > _MOST_ROWS and not arguments.all else {}
    is_taken = not is_capture and any(
        _outcome(trace)["by"] == "route" for stream, trace in traces if stream["datagrams"] is None
    )
    for number, (stream, trace) in enumerate(traces):
        if number:
            output.line()
        outcome = _outcome(trace)
        if is_taken and stream["datagrams"] is not None and outcome["by"] != "route":
            name = trace["listener"]
            output.line(f"listener {name}: as a datagram: {outcome['text']}; see --listener {name}")
            continue
        for depth, why in enumerate(explained_layers(stream, trace)):
            if depth:
                output.line()
            _write_explanation(output, why, folded, "there is no route")
    if len(streams) > 1 and is_capture:
        _summarise(output, traces)


def _outcome(trace: Mapping[str, Any]) -> Mapping[str, Any]:
    outcome: Mapping[str, Any] = trace["decision"] or trace["at_deadline"]
    return outcome


def _write_explanation(
    output: Output, why: Explanation, folded: Mapping[str, str], otherwise: str = ""
) -> None:
    """Write the verdicts on a client; routes with the answers of `folded`, which do not take it, are only counted."""
    output.line(why.title, "bold")
    output.line()
    shown, left = folded_routes(why.routes, folded)
    if shown:
        output.table([(route.cells, route.style) for route in shown], EXPLANATION_COLUMNS)
    if left:
        counts = {answer: sum(bool(row.name) for row in rows) for answer, rows in left.items()}
        words = [f"{plural(number, 'route')} {folded[kind]}" for kind, number in counts.items()]
        output.line(f"{'and ' if shown else ''}{', '.join(words)}")
    if not why.routes and otherwise:
        output.line(otherwise)
    if why.routes or otherwise:
        output.line()
    output.table([(line, "") for line in why.conclusion])


def _summarise(output: Output, traces: Iterable[tuple[Any, Mapping[str, Any]]]) -> None:
    """Write how many clients each route takes."""
    numbers = Counter((trace["listener"], taken_by(trace)) for _, trace in traces)
    rows = [((str(number), *words), "") for words, number in numbers.most_common()]
    output.line()
    output.table(rows, ("clients", "listener", "decision"), numbers=[0])


def _usage_error(arguments: argparse.Namespace) -> str:
    sources = ("text", "hex", "file", "pcap", "connection")
    given = [f"--{name}" for name in sources if getattr(arguments, name) is not None]
    if bool(given) is _is_tls(arguments):
        return (
            f"--sni and --alpn are in place of bytes; leave them out, or {given[0]}"
            if given
            else "give the client's first bytes by --text, --hex, --file or --pcap (--file - is what is piped in), "
            "a TLS client by --sni and --alpn, or a live connection by --connection"
        )
    if arguments.connection is None:
        if arguments.rules_file is None:
            return "name a rules FILE, or a live connection by --connection"
        if arguments.admin or arguments.rules or arguments.token_file:
            return (
                "--admin, --rules and --token-file are for --connection; write the rules file alone"
            )
    elif any(getattr(arguments, name) for name in _FOR_BYTES) or arguments.now is not None:
        options = joined(["--listener", "--from", "--at", "--inside", *_OPENINGS.values()], "and")
        return f"{options} are for bytes, not for --connection"
    elif arguments.rules_file and arguments.rules:
        return "the rules file is given twice; keep one"
    return ""


def _explain_connection(arguments: argparse.Namespace) -> int:
    if arguments.rules_file:
        arguments.rules = Path(arguments.rules_file)
    path = f"/api/connections/{quote(arguments.connection, safe='')}"
    return command.run(arguments, lambda ask, _: ask("GET", path), _write_connection)


def _write_connection(connection: Mapping[str, Any], _: argparse.Namespace) -> None:
    _write_explanation(Output(), explained_connection(connection), {})


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        message = f"{text!r} is not an IP address; write one as 192.0.2.1 or 2001:db8::1"
        raise argparse.ArgumentTypeError(message) from None


def _timestamp(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        message = f"{text!r} is not a time; write one as 2026-11-20T14:30 or 2026-11-20T14:30+00:00"
        raise argparse.ArgumentTypeError(message) from None


def _listeners(rules: Rules, name: str | None) -> tuple[Listener, ...]:
    if name is None:
        return rules.listeners
    names = [listener.name for listener in rules.listeners]
    if name not in names:
        hint = did_you_mean(name, names)
        raise MuxError(f"there is no [listen {name}]{hint} (there are {', '.join(names)})")
    return tuple(listener for listener in rules.listeners if listener.name == name)


def _of_transport(listeners: tuple[Listener, ...], sample: TracedSample) -> list[Listener]:
    over = Transport.TCP if sample.datagrams is None else Transport.UDP
    return [listener for listener in listeners if listener.transport is over]


def _no_traffic(listeners: tuple[Listener, ...]) -> str:
    transports = {listener.transport for listener in listeners}
    names = {Transport.TCP: "TCP connection", Transport.UDP: "UDP flow"}
    return "no " + " and no ".join(names[over] for over in Transport if over in transports)


def _samples(
    arguments: argparse.Namespace, listeners: tuple[Listener, ...], sandbox: Sandbox
) -> list[TracedSample]:
    """Read the bytes of the clients, and confine this process before they are parsed. Bytes that may be of TCP or UDP give a sample for each transport."""
    limit = max(listener.peek_limit for listener in listeners)
    client, pcap = arguments.client, arguments.pcap
    now = time.time() if arguments.now is None else arguments.now
    if pcap is not None and (why := optional.missing(_PCAP)):
        raise MuxError(f"--pcap: {why}")
    try:
        capture = io.BytesIO() if pcap is None else Path(pcap).open("rb")  # noqa: SIM115 - it is read in the sandbox
        given = _bytes(arguments, max(limit, _LONGEST_DATAGRAM)) if pcap is None else ()
    except OSError as error:
        raise MuxError(f"{error.filename} cannot be read: {error.strerror}") from None
    _be_confined(sandbox)
    if pcap is not None:
        samples = [
            TracedSample(s.data, client or s.client.host, s, now, s.datagrams)
            for one in optional.that_have(_PCAP)
            for s in one.captured(capture, pcap, limit)
        ]
        return [sample for sample in samples if _of_transport(listeners, sample)]
    if _is_tls(arguments):
        samples = [TracedSample(given[0][:limit], client, now=now)]
        none = "--sni and --alpn are for listeners of TCP, and there is none here"
    else:
        samples = [TracedSample(given[0], client, now=now, datagrams=given)]
        if len(given) == 1:
            samples.insert(0, TracedSample(given[0][:limit], client, now=now))
        none = (
            "several datagrams are for listeners with udp: endpoints, and there is none here; "
            "give the bytes of a stream at once"
        )
    samples = [sample for sample in samples if _of_transport(listeners, sample)]
    if not samples:
        raise MuxError(none)
    return samples


def _is_tls(arguments: argparse.Namespace) -> bool:
    return arguments.sni is not None or arguments.alpn is not None


def _hello(name: str | None, protocols: str | None) -> bytes:
    offered = [one.strip() for one in protocols.split(",")] if protocols else []
    try:
        return client_hello(name or None, *offered)
    except (ValueError, OverflowError) as error:
        raise MuxError(f"--sni, --alpn: no client can say this: {error}") from None


def _be_confined(sandbox: Sandbox) -> None:
    from txmux.processes.worker.sandbox import confine  # noqa: PLC0415 - no other command needs it

    # `yes` is a demand on the service, and these rules may be another machine's.
    is_confined = confine("off" if sandbox == "off" else "auto", None)
    if not (is_confined or sandbox == "off" or os.geteuid()):
        why = "this machine has no sandbox, so what clients sent is parsed with all rights of root"
        print(f"warning: {why}; run this as another user", file=sys.stderr)


def _bytes(arguments: argparse.Namespace, limit: int) -> tuple[bytes, ...]:
    if _is_tls(arguments):
        return (_hello(arguments.sni, arguments.alpn),)
    try:
        if arguments.text is not None:
            return tuple(map(bytes_from_text, arguments.text))
        if arguments.hex is not None:
            return tuple(bytes_from_hex("hex", text) for text in arguments.hex)
    except OptionError as error:
        raise MuxError(f"--{error}") from None
    return tuple(_read(name, limit) for name in arguments.file)


def _read(name: str, limit: int) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(limit)
    with Path(name).open("rb") as file:
        return file.read(limit)


def _opening(arguments: argparse.Namespace) -> HelloOpening | None:
    paths = ((kind, getattr(arguments, kind.key)) for kind in OPENINGS)
    return next((kind.make(path, time.monotonic) for kind, path in paths if path), None)


def _listeners_inside(
    rules: Rules, listeners: tuple[Listener, ...], arguments: argparse.Namespace
) -> tuple[tuple[Listener, ...], Route | None, FoundCertificate | None]:
    """For ``--inside``, return listeners with the route's destination as default, the route, and the client's certificate."""
    name, certificate = arguments.inside, arguments.client_cert
    if name is None and certificate is not None:
        message = "a certificate is shown in TLS; name the route that terminates it by --inside"
        raise MuxError(message)
    if name is None:
        return listeners, None, None
    ends = {route.name: route for route in rules.routes if route.is_outer}
    if name not in ends:
        hint = did_you_mean(name, ends)
        names = f" (there are {', '.join(ends)})" if ends else ""
        message = f"there is no [route {name}] that terminates TLS or opens tunnels{hint}{names}"
        raise MuxError(message)
    end = ends[name]
    reached = [
        inner_listener(listener, end) for listener in listeners if comes_to(end, listener, ends)
    ]
    if not reached:
        raise MuxError(f"no client of this listener comes to [route {name}]; leave out --listener")
    return tuple(reached), end, _certificate(rules, end, certificate)


def _certificate(rules: Rules, end: Route, text: str | None) -> FoundCertificate | None:
    """Return the certificate that a client of a route presents; ``None`` if the route requests none."""
    routes = [end]
    for route in routes:
        tls = route.terminate_tls
        if tls is not None and tls.client_ca is not None:
            shown = _presented_certificate(tls, text or "none")
            if tls.client == "required" and "any" not in shown.kinds and text is not None:
                message = f"--client-cert: the handshake fails, since [route {route.name}] wants a valid certificate, and this is {shown}"
                raise MuxError(message)
            return shown
        routes += [end for end in rules.routes if end.name in route.under and end not in routes]
    if text not in {None, "none"}:
        raise MuxError(f"--client-cert: [route {end.name}] asks clients for no certificate")
    return None


def _presented_certificate(tls: TlsSettings, text: str) -> FoundCertificate:
    if text in {"none", "revoked"}:
        return NO_CERTIFICATE if text == "none" else REVOKED
    from txmux.client.tls.client_certificates import ClientVerification  # noqa: PLC0415 - OpenSSL takes a while
    from txmux.net.tls.pem import read_authorities  # noqa: PLC0415 - the same

    first, *chain = read_authorities(Path(text), "--client-cert")
    return ClientVerification(tls).judge(first, chain)

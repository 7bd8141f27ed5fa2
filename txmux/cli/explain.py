"""`txmux explain FILE`: what each route says of some bytes, and who wins."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from txmux.cli._output import Output
from txmux.cli._trace import Sample, Trace, as_json, write
from txmux.cli.pcap import client_streams, read_segments
from txmux.detection.explain import explain
from txmux.errors import MuxError, OptionError
from txmux.matchers.payload import bytes_from_hex, bytes_from_text
from txmux.rules.model.networks import unmapped
from txmux.rules.problems import RulesError, did_you_mean
from txmux.rules.reading.parser import load

if TYPE_CHECKING:
    from txmux.rules.model import Listener, Rules

NAME = "explain"
SUMMARY = (
    "Tell what each route says of a client's first bytes, at which byte it knew, and who wins."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("rules", metavar="FILE", help="a rules file")
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "--text", metavar="TEXT", help=r"the bytes as text, with \r \n \t \0 \\ and \xNN"
    )
    sources.add_argument("--hex", metavar="HEX", help="the bytes as pairs of hex digits")
    sources.add_argument(
        "--file", metavar="PATH", help="a file with the bytes; - is standard input"
    )
    sources.add_argument(
        "--pcap",
        metavar="PATH",
        help="a capture: what the client of each TCP connection said first",
    )
    parser.add_argument("--listener", metavar="NAME", help="only for this listener")
    parser.add_argument(
        "--from",
        metavar="ADDRESS",
        dest="client",
        type=_address,
        help="the client's IP address; with --pcap by default the one in the capture",
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        dest="now",
        type=_moment,
        help="for 'during': when it is said, as 2026-11-20T14:30 here or 2026-11-20T14:30+00:00; by default now",
    )
    parser.add_argument(
        "--json", action="store_true", help="write one JSON document, for programs to read"
    )


def run(arguments: argparse.Namespace) -> int:
    """Explain; 0 if that was possible, else 1.

    Raises:
        MuxError: The bytes cannot be had.
    """
    try:
        rules = load(arguments.rules)
    except RulesError as error:
        print(error, file=sys.stderr)
        return 1
    listeners = _listeners(rules, arguments.listener)
    try:
        samples = _samples(arguments, max(listener.peek_limit for listener in listeners))
    except OSError as error:
        raise MuxError(f"{error.filename} cannot be read: {error.strerror}") from None
    traces = [
        (sample, [_trace(rules, listener, sample) for listener in listeners]) for sample in samples
    ]
    if arguments.json:
        print(json.dumps(as_json(arguments.rules, traces), indent=2))
        return 0
    output = Output()
    if not traces:
        output.line(f"{arguments.pcap}: no TCP connection in it")
    for number, (sample, of_sample) in enumerate(traces):
        for place, trace in enumerate(of_sample):
            if number or place:
                output.line()
            write(output, sample, trace)
    return 0


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        # As the service does: IPv4 clients are IPv4 on any listener.
        return unmapped(ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an IP address; write one as 192.0.2.1 or 2001:db8::1"
        ) from None


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; write one as 2026-11-20T14:30 or 2026-11-20T14:30+00:00"
        ) from None


def _listeners(rules: Rules, name: str | None) -> tuple[Listener, ...]:
    if name is None:
        return rules.listeners
    names = [listener.name for listener in rules.listeners]
    if name not in names:
        hint = did_you_mean(name, names)
        raise MuxError(f"there is no [listen {name}]{hint} (there are {', '.join(names)})")
    return tuple(listener for listener in rules.listeners if listener.name == name)


def _samples(arguments: argparse.Namespace, limit: int) -> list[Sample]:
    client = arguments.client
    now = time.time() if arguments.now is None else arguments.now
    if arguments.pcap is None:
        return [Sample(_bytes(arguments, limit), client, now=now)]
    with Path(arguments.pcap).open("rb") as file:
        streams = client_streams(read_segments(file, arguments.pcap), limit)
    return [Sample(s.data, client or unmapped(s.client.host), s, now) for s in streams]


def _bytes(arguments: argparse.Namespace, limit: int) -> bytes:
    try:
        if arguments.text is not None:
            return bytes_from_text(arguments.text)
        if arguments.hex is not None:
            return bytes_from_hex("hex", arguments.hex)
    except OptionError as error:
        raise MuxError(f"--{error}") from None
    except UnicodeEncodeError:
        raise MuxError(r"--text: is not valid UTF-8; write such bytes as \xNN") from None
    if arguments.file == "-":
        return sys.stdin.buffer.read(limit)
    with Path(arguments.file).open("rb") as file:
        return file.read(limit)


def _trace(rules: Rules, listener: Listener, sample: Sample) -> Trace:
    routes = rules.routes_of(listener)
    found = explain(routes, sample.data, sample.client, listener.peek_limit, sample.now)
    return Trace(listener, found)

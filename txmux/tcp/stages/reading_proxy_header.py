"""The state ``introduction``: a proxy has connected on behalf of a client, and has to send a PROXY protocol header first.

Nothing else is done for the connection, because its client is not known yet.
"""

from __future__ import annotations

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress

from txmux.net.addresses import ip_address_of, text_of
from txmux.rules.model import NetworkSet, Refusal, Senders
from txmux.tcp.fast_path import CLIENT_GONE
from txmux.tcp.stage import Client, Step, gone
from txmux.tcp.transitions import Finished, Identified, Outcome, TurnedAway
from txmux.transport import unmapped
from txmux.wire.facts import printable
from txmux.wire.proxyprotocol.decode import Decoded, Incomplete, decode
from txmux.wire.proxyprotocol.fields import header_facts
from txmux.wire.proxyprotocol.header import Address, Command, InvalidHeader, ProxyHeader

_START_OF_V2 = 16  # has the length of the rest
_CUT = "the stream ended inside the header"
_FORGED = "a client of this service has written it, at a place of its own choice; add 'proxy_protocol' to the backend that leads here"


def is_sender(peer: IAddress, senders: NetworkSet) -> bool:
    """Return whether a connection has to begin with a header."""
    end = ip_address_of(peer)
    if end is not None:
        return end.host in senders
    by_unix = isinstance(peer, UNIXAddress)
    return by_unix and isinstance(senders, Senders) and senders.by_unix


def enter(client: Client) -> Step | None:
    client.state = "introduction"
    client.record.note(proxy_peer=text_of(client.peer_address()))
    return client.read()


def data(client: Client, data: bytes) -> Outcome | None:
    received = client.received = client.received + data  # it is not counted
    if len(received) < client.header_length:
        return None
    try:
        answer = take_header(client)
    except InvalidHeader as problem:
        return _refuse(client, str(problem))
    if isinstance(answer, Decoded):
        return Identified(answer.length)
    # The fields may be many, and would be read again with every byte.
    if received.startswith(b"\r") and len(received) >= _START_OF_V2:
        client.header_length = len(received) + answer.need
    return None


def end(client: Client) -> Outcome:
    if client.received:
        return _refuse(client, _CUT)
    return gone(client)


def lost(client: Client) -> Outcome:
    if not client.received:
        return CLIENT_GONE
    client.record.note(proxy_error=_CUT)
    return Finished("proxy-header")


def due_at(client: Client) -> float:
    return client.accepted_at + client.configuration.settings.proxy_timeout


def due(client: Client) -> Outcome:
    seconds = client.configuration.settings.proxy_timeout
    return _refuse(client, f"no header within {seconds:g} s: see accept_proxy_from")


def _refuse(client: Client, problem: str) -> Outcome:
    client.record.note(proxy_error=printable(problem))
    return TurnedAway(Refusal.CLOSE, "proxy-header")


def take_header(client: Client) -> Decoded | Incomplete:
    """Read the header with which `received` begins, and take over its fields for the client if it has come in full.

    Raises:
        InvalidHeader: It is none, or a field cannot be read.
    """
    answer = decode(client.received)
    if client.runtime.loop_detector.may_forge_header(client.peer(), client.host()):
        raise InvalidHeader(_FORGED)
    if isinstance(answer, Decoded):
        _apply_header(client, answer.header)
    return answer


def _apply_header(client: Client, header: ProxyHeader) -> None:
    """Take over a header's fields for a client; raises `InvalidHeader` if a field cannot be read."""
    if header.command is Command.LOCAL:
        return
    record = client.record
    if header.tlvs:
        record.note({name: printable(text) for name, text in header_facts(header).items()})
    client.tlvs = header.tlvs
    if header.source is not None and header.destination is not None:
        client.source = _unmapped(header.source)
        client.destination = _unmapped(header.destination)
        record.client = str(client.source)
        record.local = str(client.destination)


def _unmapped(end: Address) -> Address:
    host = unmapped(end.host)
    return end if host is end.host else Address(host, end.port)

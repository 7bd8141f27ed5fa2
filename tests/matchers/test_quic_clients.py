import ssl

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import encode_quic_retry, pull_quic_header
from aioquic.tls import SessionTicket
from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import make_authority
from tests.wire.quic_builder import V1, V2, connection, sent
from txmux.interfaces import Verdict
from txmux.matchers.quic import quic
from txmux.testing import flow_decided


def verdict(*datagrams: bytes, **options: str) -> Verdict:
    return flow_decided(quic.predicate(options), datagrams).verdict


class ClientTests(SynchronousTestCase):
    def test_each_version_is_known_also_after_a_retry(self) -> None:
        for version, name, other in ((V1, "1", "2"), (V2, "2", "1")):
            flow = sent(connection(version))
            self.assertIs(verdict(*flow, sni="www.example.com", version=name), Verdict.MATCH)
            self.assertIs(verdict(*flow, sni="www.example.com", version=other), Verdict.NO)
            self.assertIs(verdict(*flow, sni="other.example"), Verdict.NO)
            self.assertIs(verdict(*flow, alpn="h3"), Verdict.MATCH)
        # After a Retry it begins again with a token, another connection ID and other keys.
        for version in (V1, V2):
            client = connection(version)
            (first,) = sent(client)
            header = pull_quic_header(Buffer(data=first), host_cid_length=8)
            retry = encode_quic_retry(
                version=version,
                source_cid=bytes(range(8)),
                destination_cid=header.source_cid,
                original_destination_cid=header.destination_cid,
                retry_token=b"token" * 20,
            )
            client.receive_datagram(retry, ("127.0.0.1", 1), now=0.1)
            (second,) = sent(client)
            self.assertNotEqual(first[6:14], second[6:14])
            self.assertIs(verdict(second, sni="www.example.com"), Verdict.MATCH)

    def test_a_hello_that_takes_two_datagrams_in_either_order(self) -> None:
        flow = sent(connection(protocols=36))
        self.assertEqual(len(flow), 2)
        self.assertIs(verdict(*flow, sni="www.example.com"), Verdict.MATCH)
        self.assertIs(verdict(*flow[::-1], sni="www.example.com"), Verdict.MATCH)
        self.assertIs(verdict(flow[0], alpn="protocol-*35"), Verdict.NEED_MORE)
        self.assertIs(verdict(*flow, alpn="protocol-*35"), Verdict.MATCH)

    def test_early_data(self) -> None:
        """A client that knows the server sends 0-RTT; those packets may come before its Initial."""
        flow = early_flow()
        self.assertGreater(len(flow), 1)
        self.assertIs(verdict(*flow, sni="www.example.com"), Verdict.MATCH)
        early = flow[-1]
        self.assertEqual(early[0] >> 4 & 3, 1)
        self.assertIs(verdict(early), Verdict.NEED_MORE)
        self.assertIs(verdict(early, *flow[:-1], sni="www.example.com"), Verdict.MATCH)


def early_flow() -> tuple[bytes, ...]:
    tickets: dict[bytes, SessionTicket] = {}
    kept: list[SessionTicket] = []
    identity = make_authority().issue("www.example.com")
    server_side = QuicConfiguration(
        is_client=False,
        alpn_protocols=["h3"],
        certificate=identity.certificate,
        private_key=identity.key,
        max_datagram_size=1200,
    )
    client = QuicConnection(configuration=_client(None), session_ticket_handler=kept.append)
    client.connect(("127.0.0.1", 1), now=0.0)
    server = QuicConnection(
        configuration=server_side,
        original_destination_connection_id=client.original_destination_connection_id,
        session_ticket_fetcher=tickets.get,
        session_ticket_handler=lambda ticket: tickets.update({ticket.ticket: ticket}),
    )
    for now in range(5):
        for giver, taker in ((client, server), (server, client)):
            for datagram in sent(giver, now):
                taker.receive_datagram(datagram, ("127.0.0.1", 1), now=float(now))
    again = QuicConnection(configuration=_client(kept[-1]))
    again.connect(("127.0.0.1", 1), now=0.0)
    again.send_stream_data(again.get_next_available_stream_id(), bytes(2000))
    return sent(again)


def _client(ticket: SessionTicket | None) -> QuicConfiguration:
    return QuicConfiguration(
        is_client=True,
        alpn_protocols=["h3"],
        server_name="www.example.com",
        verify_mode=ssl.CERT_NONE,
        session_ticket=ticket,
    )

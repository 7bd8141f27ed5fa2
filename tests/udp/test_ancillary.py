import socket

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import PATIENCE
from txmux.udp import ancillary


class AncillaryTests(SynchronousTestCase):
    @given(st.binary(max_size=100), st.integers(0, 40))
    def test_splits_datagrams_of_one_length_but_the_last(self, data: bytes, size: int) -> None:
        parts = ancillary.split(data, size)
        self.assertEqual(b"".join(parts), data)
        self.assertEqual(len(parts), ancillary.datagrams_in(len(data), size))
        self.assertTrue(all(len(part) == size for part in parts[:-1]))

    def test_answers_from_the_address_that_was_asked(self) -> None:
        for family, host, name, ask in (
            (socket.AF_INET, "127.0.0.5", "0.0.0.0", "127.0.0.5"),
            (socket.AF_INET6, "::1", "::", "::1"),
            (socket.AF_INET6, "127.0.0.7", "::", "127.0.0.7"),
        ):
            of_client = socket.AF_INET6 if ":" in host else socket.AF_INET
            port, client = (socket.socket(one, socket.SOCK_DGRAM) for one in (family, of_client))
            with port, client:
                if family == socket.AF_INET6:
                    port.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                port.bind((name, 0))
                ancillary.ask_for_addresses(port)
                client.settimeout(PATIENCE)
                client.sendto(b"hello", (host, port.getsockname()[1]))
                _, reported, _, peer = port.recvmsg(100, ancillary.SPACE)
                local, size = ancillary.read(reported)
                self.assertEqual((ancillary.address_text(local), size), (ask, 0))
                port.sendmsg([b"answer"], ancillary.answer_from(local), 0, peer)
                _, sender = client.recvfrom(100)
                self.assertEqual(sender[0], host)

    def test_keeps_the_link_of_link_local_addresses_alone(self) -> None:
        link = bytes.fromhex("fe80000000000000000000000000000107000000")
        plain = bytes.fromhex("2001000000000000000000000000000107000000")
        for info, size in ((link, 20), (plain, 16)):
            local, _ = ancillary.read([(socket.IPPROTO_IPV6, 50, info)])
            self.assertEqual(local, info[:size])
            self.assertEqual(ancillary.link_of(local), 7 if size == 20 else 0)
            [(_, _, back)] = ancillary.answer_from(local)
            self.assertEqual(back, info if size == 20 else info[:16] + b"\0\0\0\0")
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            port.bind(("127.0.0.1", 0))
            port.settimeout(PATIENCE)
            ancillary.gather(port)
            self.assertTrue(ancillary.gathers(port))
            client.connect(port.getsockname())
            data = bytes(range(250)) * 10
            client.sendmsg([data], ancillary.cut_into(600))
            came, reported, _, _ = port.recvmsg(65535, ancillary.SPACE)
            self.assertEqual((came, ancillary.read(reported)), (data, (b"", 600)))

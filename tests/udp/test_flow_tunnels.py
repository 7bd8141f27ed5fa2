from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.test_wireguard import COOKIE, DATA, DATAGRAMS, RESPONSE, SERVER
from tests.support.datagrams import Talker, turn
from tests.udp.flow_case import LISTEN, FlowCase
from txmux.interfaces import Datagrams, Verdict
from txmux.matchers.wireguard import wireguard
from txmux.udp.connection_ids import begins_tunnel, continues_tunnel

_RULES = f"""{LISTEN}default = %s
[route vpn]
match = wireguard key=%s
backend = udp:127.0.0.1:%d
"""


class FormTests(SynchronousTestCase):
    def test_data_and_cookies_continue_a_tunnel_and_initiations_begin_one(self) -> None:
        others = DATAGRAMS[0], RESPONSE, DATA[:-1], COOKIE[:-1], b"\5" + COOKIE[1:], b""
        goes = [continues_tunnel(one) for one in (COOKIE, DATA, *others)]
        self.assertEqual(goes, [True, True, *[False] * len(others)])
        initiation, other = DATAGRAMS
        self.assertTrue(begins_tunnel(initiation, 0))
        self.assertTrue(begins_tunnel(initiation + other, len(initiation)))
        self.assertFalse(begins_tunnel(initiation + other, 0))
        self.assertFalse(any(begins_tunnel(one, 0) for one in (RESPONSE, COOKIE, DATA, b"")))

    forms = st.sampled_from([(1, 148), (2, 92), (3, 64)])
    sizes = st.sampled_from([4, 32, 33, 48, 64, 92, 148, 160])

    @given(forms | st.tuples(st.integers(0, 5), sizes), st.binary(min_size=160, max_size=160))
    def test_matched_first_message_begins_it(self, form: tuple[int, int], body: bytes) -> None:
        kind, size = form
        data = (bytes([kind, 0, 0, 0]) + body)[:size]
        matches = wireguard.predicate({})(Datagrams((data,))) is Verdict.MATCH
        self.assertEqual(begins_tunnel(data, 0), matches and kind == 1)
        if matches:
            self.assertEqual(continues_tunnel(data), kind in {3, 4})


class StrayTests(FlowCase):
    def begin_with(self, default: str) -> tuple[Talker, int]:
        server = Talker.listening(self, answer=lambda _: RESPONSE)
        [port] = self.run_service(_RULES % (default, SERVER, server.port))
        return server, port

    async def test_stray_data_is_one_dropped_flow_until_the_tunnel_begins_again(self) -> None:
        """Also in the process that it is handed over to."""
        for moves in (False, True):
            server, port = self.begin_with("close")
            client = Talker.listening(self)
            for _ in range(3):
                client.say(DATA, port)
            if moves:
                while not any(one.datagrams_in == 3 for one in self.old.connections):
                    await turn()
                self.assertEqual([one.state for one in self.old.connections], ["closing"])
                self.assertEqual(await self.hand_over(), 1)
            self.assertEqual(await client.asks(DATAGRAMS[0], port), RESPONSE)
            self.assertEqual(server.heard, [DATAGRAMS[0]])
            await self.assert_ended(reason="no-route", datagrams_in=3)
            for data in (DATAGRAMS[0], DATA, DATAGRAMS[1], DATA):  # it begins again in its flow
                self.assertEqual(await client.asks(data, port), RESPONSE)
            self.assertEqual(len(set(server.senders)), 1)
            await self._stop()
            self.log.unlink()

    async def test_stray_data_goes_to_the_default_but_the_new_tunnel_does_not(self) -> None:
        for answer in (b"", b"what"):
            other = Talker.listening(self, answer=lambda _, answer=answer: answer)
            server, port = self.begin_with(f"udp:127.0.0.1:{other.port}")
            client = Talker.listening(self)
            client.say(DATA, port)
            await other.hears(1)
            if answer:
                await client.hears(1)
            self.assertEqual(await client.asks(DATAGRAMS[0], port), RESPONSE)
            self.assertEqual((other.heard, server.heard), ([DATA], [DATAGRAMS[0]]))
            await self._stop()

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.model import Check
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.checks import check
from txmux.rules.reading.values import rate


class CheckTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        for text, expected in {
            "tcp": Check("tcp", interval=3.0, timeout=1.0, rise=2, fall=3),
            "redis interval=10s timeout=250ms rise=1 fall=5": Check("redis", 10.0, 0.25, 1, 5),
            "postgres": Check("postgres"),
            "ssh fall=1": Check("ssh", fall=1),
            "smtp timeout=10s": Check("smtp", timeout=10.0),
            "mysql": Check("mysql", user="txmux"),
            "mysql user=haproxy": Check("mysql", user="haproxy"),
            "http": Check("http", path="/", statuses=(range(200, 300), range(300, 400))),
            "http path=/health?x=1 expect=204,5xx host=a.b:80": Check(
                "http",
                path="/health?x=1",
                host="a.b:80",
                statuses=(range(204, 205), range(500, 600)),
            ),
            "http path=/h method=HEAD": Check("http", method="HEAD", path="/h"),
            "http method=GET": Check("http"),
            "http method=M-SEARCH": Check("http", method="M-SEARCH"),
            "http expect='2xx, 301'": Check("http", statuses=(range(200, 300), range(301, 302))),
            r"send=PING\r\n expect=+PONG rise=1": Check(
                "expect=", rise=1, send=b"PING\r\n", expect=b"+PONG"
            ),
            r"""expect='a b\x00' send="é 'x'" """: Check(
                "expect=", send="é 'x'".encode(), expect=b"a b\0"
            ),
            r"http send='HEAD / HTTP/1.0\r\n\r\n' expect=200-299,401": Check(
                "http", send=b"HEAD / HTTP/1.0\r\n\r\n", statuses=(range(200, 300), range(401, 402))
            ),
            "http expect=204-204": Check("http", statuses=(range(204, 205),)),
            "http port=8008 path=/x": Check("http", path="/x", port=8008),
            "dns name=a.example": Check("dns", name="a.example"),
            "tcp tls=yes sni=a.example": Check("tcp", tls=True, sni="a.example"),
            "redis tls=no": Check("redis", tls=False),
            "expect=220 interval=5s": Check("expect=", 5.0, expect=b"220"),
        }.items():
            self.assertEqual(check(text), expected, text)
        self.assertRaises(InvalidValueError, check, "interval=5s expect=220")
        for text, number in {"1/s": 1, "512KiB/s": 512 * 1024, "1024GiB/s": 1024**4}.items():
            self.assertEqual(rate(text), number)

    @given(st.binary(min_size=1), st.binary(min_size=1))
    def test_any_bytes_can_be_sent_and_expected(self, send: bytes, expect: bytes) -> None:
        texts = ["".join(rf"\x{byte:02x}" for byte in data) for data in (send, expect)]
        found = check(f"send={texts[0]} expect='{texts[1]}'")
        self.assertEqual((found.send, found.expect), (send, expect))

    @given(st.sampled_from(["", "http ", "send="]), st.text())
    def test_any_text(self, begin: str, text: str) -> None:
        try:
            self.assertIsInstance(check(begin + text), Check)
        except InvalidValueError as error:
            self.assertTrue(all(error.messages))

"""The web page, over loopback sockets and with curl."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime

from tests.demo.serving import ServingTestCase
from tests.programs import run_program
from txmux.demo.page import PageSite


class PageTests(ServingTestCase):
    """`PageSite`: one page in two forms."""

    async def serve_page(self) -> int:
        return await self.serve(PageSite(IReactorTime(reactor)))

    async def request(self, port: int, *lines: str, body: bytes = b"") -> tuple[str, str]:
        """Send one request, and give the head and the body of the response."""
        head = "\r\n".join([*lines, "Connection: close", "", ""])
        response = await self.talk(port, head.encode() + body, finish=False)
        answered, _, page = response.decode().partition("\r\n\r\n")
        return answered, page

    async def test_text(self) -> None:
        """A client that does not ask for HTML gets plain text, with the port it came to."""
        port = await self.serve_page()
        head, page = await self.request(port, "GET /any/where HTTP/1.1", "Host: x", "Accept: */*")
        self.assertTrue(head.startswith("HTTP/1.1 200 OK"))
        self.assertIn("text/plain", head)
        self.assertTrue(page.startswith("Your connection was recognised as HTTP."))
        self.assertIn("the GET of HTTP/1.1", page)
        self.assertIn(f"redis-cli -p {port} ping", page)

    async def test_html(self) -> None:
        """A browser gets HTML."""
        port = await self.serve_page()
        head, page = await self.request(port, "GET / HTTP/1.0", "Accept: text/html,*/*;q=0.8")
        self.assertIn("text/html", head)
        self.assertTrue(page.startswith("<!doctype html>"))
        self.assertIn(f"<b>{port}</b>", page)
        self.assertIn("<code>redis-cli", page)

    async def test_head(self) -> None:
        """HEAD gets the head only."""
        head, page = await self.request(await self.serve_page(), "HEAD / HTTP/1.0")
        self.assertTrue(head.startswith("HTTP/1.0 200 OK"))
        self.assertEqual(page, "")

    async def test_post(self) -> None:
        """There is nothing to post to, and a long body is not kept."""
        port = await self.serve_page()
        head, _ = await self.request(
            port, "POST / HTTP/1.1", "Host: x", "Content-Length: 2", body=b"hi"
        )
        self.assertTrue(head.startswith("HTTP/1.1 405"))
        # Twisted's own 405 page warns of its own base class.
        self.flushWarnings()
        head, _ = await self.request(
            port, "POST / HTTP/1.1", "Host: x", "Content-Length: 99999999", body=bytes(200_000)
        )
        self.assertEqual(head, "")

    async def test_curl(self) -> None:
        """The command from the hints shows the page."""
        out, _, status = await run_program(
            "curl", "-sS", "--noproxy", "*", f"http://127.0.0.1:{await self.serve_page()}/"
        )
        self.assertEqual(status, 0)
        self.assertIn(b"recognised as HTTP", out)

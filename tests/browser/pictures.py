"""Makes the pictures of the page in the docs: ``python -m tests.browser.pictures``."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.browser.driving import Browser
from tests.browser.service import Holding, Watched, three_routes
from tests.interop.children import eventually
from tests.interop.servers import start_redis
from tests.support.ports import free_port

_IMAGES = Path(__file__).parent.parent.parent / "docs/images"
_SECONDS = 40
"""Of traffic, for the charts."""

_SHORT_PATH = r"""
const about = document.querySelector(".about");
about.textContent = about.textContent.replace(/\S+rules.ini/, "/etc/txmux/rules.ini");
"""


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis, holding = start_redis(folder), Holding()
        stack.callback(redis.end)
        stack.callback(holding.end)
        watched = Watched(folder, three_routes(redis, holding.port, free_port()))
        stack.callback(watched.end)
        browser = Browser()
        stack.callback(browser.end)
        for number in range(_SECONDS):
            for _ in range(number % 7):
                watched.say("public", b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
            watched.say("office", b"PING\r\n" * (50 + 20 * (number % 5)))
            time.sleep(1)
        watched.say("public", b"EHLO there\r\n")
        browser.look_like(1100, "light", 900)
        browser.open(watched.address)
        browser.find("#token").send_keys(watched.token)
        browser.click("button")
        eventually(lambda: bool(browser.all("figure .uplot")), "the charts are drawn")
        _IMAGES.mkdir(exist_ok=True)
        for scheme in ("light", "dark"):
            browser.look_like(1100, scheme, 900)
            browser.open(watched.address)
            eventually(lambda: bool(browser.all("figure .uplot")), "the charts are drawn")
            browser.run(_SHORT_PATH)
            (_IMAGES / f"page-{scheme}.png").write_bytes(browser.picture())


if __name__ == "__main__":
    main()

"""Makes the pictures in the docs, of the page and of ``txmux top``: ``python -m tests.browser.pictures``."""

import io
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.browser.driving import Browser
from tests.browser.service import Holding, Watched, three_routes
from tests.interop.screen import Screen
from tests.interop.servers import start_redis
from tests.support.kit import eventually, free_port

_IMAGES = Path(__file__).parent.parent.parent / "docs/images"
_SECONDS = 40
"""Of traffic, for the charts."""

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
_PATH = "/etc/txmux/rules.ini"
_SHORT_PATH = rf"""
const about = document.querySelector(".about");
about.textContent = about.textContent.replace(/\S+rules.ini/, "{_PATH}");
"""

_SVG = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""Without fonts from elsewhere, which no browser would load for a picture."""

_TXMUX = f"'{sys.executable}' -m txmux"


def picture_of_terminal(name: str, title: str, text: str, width: int) -> None:
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text.rstrip()))
    svg = console.export_svg(title=title, code_format=_SVG, unique_id=name)
    (_IMAGES / f"{name}.svg").write_text("".join(f"{line.rstrip()}\n" for line in svg.splitlines()))


def talk(watched: Watched, seconds: int) -> None:
    for number in range(seconds):
        for _ in range(number % 7):
            watched.say("public", b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
        watched.say("office", b"PING\r\n" * (50 + 20 * (number % 5)))
        time.sleep(1)


def shown_by_top(folder: Path, watched: Watched) -> None:
    screen = Screen(folder, 110, 30)
    token = folder / "token"
    token.write_text(watched.token)
    try:
        screen.type(f"{_TXMUX} top --admin {watched.address} --token-file {token}\n")
        talk(watched, 20)
        screen.wait_for(" relaying ")
        path = r"[\w/….-]*rules\.ini"
        shown = re.sub(path, lambda one: _PATH.rjust(len(one[0])), screen.coloured)
        picture_of_terminal("top", "txmux top", shown, 110)
    finally:
        screen.end()


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis, holding = start_redis(folder), Holding(_ANSWER)
        stack.callback(redis.end)
        stack.callback(holding.end)
        watched = Watched(folder, three_routes(redis, holding.port, free_port()))
        stack.callback(watched.end)
        browser = Browser()
        stack.callback(browser.end)
        talk(watched, _SECONDS)
        watched.say("public", b"EHLO there\r\n")
        browser.look_like(1100, "light", 900)
        browser.open(watched.address)
        browser.find("#token").send_keys(watched.token)
        browser.click("button")
        eventually(lambda: bool(browser.all("figure .uplot")), "the charts are drawn")
        _IMAGES.mkdir(exist_ok=True)
        for scheme in ("light", "dark"):
            browser.look_like(1100, scheme, 870)
            browser.open(watched.address)
            eventually(lambda: bool(browser.all("figure .uplot")), "the charts are drawn")
            browser.run(_SHORT_PATH)
            (_IMAGES / f"page-{scheme}.png").write_bytes(browser.picture())
        shown_by_top(folder, watched)


if __name__ == "__main__":
    main()

"""Records the first steps in a terminal, which README shows: ``python -m tests.browser.cast``, as root.

The cast has asciinema's format, version 2; the picture shows the same characters at the same times, and needs no script.
"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from pathlib import Path

from tests.interop.servers import make_certificate, start_nginx, start_redis, start_sshd
from tests.support.kit import PATIENCE, Namespace, eventually, listens
from tests.support.undone import Undone

CAST = Path(__file__).parents[2] / "docs/images/first-steps.cast"
PICTURE = CAST.with_suffix(".svg")

_WIDTH, _HEIGHT = 96, 30
_KEY, _ANSWER, _LINE, _PAUSE = 0.04, 0.3, 0.05, 1.2
"""Seconds for a key, before a program writes, for a line, and after the last one."""

_STEPS = (
    ("txmux init --probe -o rules.ini   # from what listens on this machine", "written"),
    ("txmux check rules.ini", "OK"),
    ("txmux run rules.ini >log 2>&1 &", ""),
    ("curl -k https://127.0.0.1", "nginx"),
    ("redis-cli -p 443 ping", "PONG"),
    ("tail -n 1 log", "reason"),
    (r"txmux explain rules.ini --from 127.0.0.1 --text 'PING\r\n'", "decision"),
)
"""What is typed, and what comes."""

_SITE = """
server {{
    listen 127.0.0.1:8443 ssl;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    location / {{ return 200 "hello from nginx\\n"; }}
}}
"""

_ANYBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c")

_Event = tuple[float, str]


class _Recorder:
    def __init__(self, folder: Path) -> None:
        self.events: list[_Event] = []
        self.children: list[subprocess.Popen[bytes]] = []
        self._folder, self._now = folder, 0.0
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _HEIGHT, _WIDTH, 0, 0))

    def _add(self, seconds: float, text: str) -> None:
        self._now += seconds
        self.events.append((round(self._now, 2), text))

    def run(self, command: str, expected: str) -> None:
        self._add(_PAUSE, "$ \x1b[1m")
        for key in command:
            self._add(_KEY, key)
        self._add(_ANSWER, "\x1b[0m\r\n")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"PATH": path, "TERM": "xterm", "XDG_RUNTIME_DIR": str(self._folder)}
        child = subprocess.Popen(
            [*_ANYBODY, f"exec {command.removesuffix(' &')}"],
            cwd=self._folder,
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=self._theirs,
            stderr=self._theirs,
        )
        self.children.append(child)
        written = ""
        while expected and (expected not in written or not written.endswith("\n")):
            if not select.select([self._ours], [], [], PATIENCE)[0]:
                raise AssertionError(f"{command}: no {expected!r} in {written!r}")
            written += os.read(self._ours, 65536).decode()
        for line in written.splitlines(keepends=True):
            self._add(_LINE, line)


def record() -> list[_Event]:
    """Run the steps in a network of their own, where three servers listen."""
    with tempfile.TemporaryDirectory() as name, Undone() as undone:
        folder = Path(name)
        folder.chmod(0o1777)
        network = Namespace(undone)
        network.set("ipv4/ip_unprivileged_port_start", "0")
        network.enter()
        certificate = make_certificate(folder, "localhost")
        for server in (
            start_sshd(folder, 22),
            start_nginx(folder, _SITE.format(chain=certificate.chain, key=certificate.key)),
            start_redis(folder, 6379),
        ):
            undone.addCleanup(server.end)
        recorder = _Recorder(folder)
        try:
            for command, expected in _STEPS:
                if command.startswith("tail"):
                    log = folder / "log"
                    eventually(lambda log=log: "route=redis" in log.read_text(), "it is logged")  # type: ignore[misc]
                recorder.run(command, expected)
                if command.endswith("&"):
                    eventually(lambda: listens(443), "txmux listens")
        finally:
            for child in recorder.children:
                child.terminate()
                child.wait(PATIENCE)
        return recorder.events


def read_cast(text: str) -> list[_Event]:
    return [(seconds, data) for seconds, _, data in map(json.loads, text.splitlines()[1:])]


_STYLES = {"1": "b", "2": "d", "31": "r", "32": "g", "33": "y"}
_CSS = """
rect { fill: #f6f8fa; stroke: #d0d7de }
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre; fill: #1f2328 }
.b { font-weight: bold } .d { fill: #6e7781 } .r { fill: #cf222e } .g { fill: #116329 } .y { fill: #7d4e00 }
@media (prefers-color-scheme: dark) {
rect { fill: #0d1117; stroke: #30363d }
text { fill: #e6edf3 }
.d { fill: #8b949e } .r { fill: #ff7b72 } .g { fill: #7ee787 } .y { fill: #e3b341 }
}
@media (prefers-reduced-motion: no-preference) {
tspan { animation: come 1ms both }
@keyframes come { from { fill-opacity: 0 } }
}
"""


def _pieces(events: Iterable[_Event]) -> Iterator[tuple[int, float, str, str]]:
    """Yield text with its row, when it comes, and its classes; a row is folded at the width of the terminal."""
    row = column = 0
    style = ""
    for seconds, data in events:
        for part in re.findall(r"\x1b\[[\d;]*m|\r?\n|[^\x1b\r\n]+", data):
            if part.startswith("\x1b"):
                style = " ".join(filter(None, map(_STYLES.get, part[2:-1].split(";"))))
            elif part.endswith("\n"):
                row, column = row + 1, 0
            else:
                for character in part:
                    if column == _WIDTH:
                        row, column = row + 1, 0
                    yield row, seconds, style, character
                    column += 1


def draw(events: Iterable[_Event]) -> str:
    """Draw the picture of a cast, which comes key by key and line by line, and then stays."""
    texts = []
    rows = 0
    for row, pieces in groupby(_pieces(events), lambda piece: piece[0]):
        spans = []
        for (seconds, style), part in groupby(pieces, lambda piece: piece[1:3]):
            kind = f' class="{style}"' if style else ""
            text = escape("".join(character for *_, character in part), quote=False)
            spans.append(f'<tspan{kind} style="animation-delay:{seconds:g}s">{text}</tspan>')
        texts.append(f'<text y="{28 + 18 * row}">{"".join(spans)}</text>')
        rows = row + 1
    width, height = round(32 + 7.83 * _WIDTH), 18 * rows + 24
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" {size}>',
            f"<style>{_CSS}</style>",
            f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>',
            f'<g transform="translate(16)">{"".join(texts)}</g>',
            "</svg>\n",
        )
    )


if __name__ == "__main__":
    events = record()
    header = {"version": 2, "width": _WIDTH, "height": _HEIGHT, "title": "txmux: first steps"}
    lines = [header, *([seconds, "o", text] for seconds, text in events)]
    CAST.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    PICTURE.write_text(draw(events))

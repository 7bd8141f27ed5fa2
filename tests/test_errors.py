"""What others have written is told in lines of ours, and commands no terminal."""

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL, crypto
from twisted.internet import error
from twisted.internet.address import HostnameAddress, UNIXAddress
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed

from tests.support.changes import change_environment
from tests.support.kit import change_constants, make_authority, make_folder, pretend_user
from txmux.admin.guard import Caller
from txmux.admin.site import audit
from txmux.adopt.receiving import read as read_handed_over
from txmux.backends.health.probes import shown as answer_shown
from txmux.backends.names.lookup import _shown as name_shown
from txmux.cli._output import Output
from txmux.cli.run.program import as_text
from txmux.errors import MuxError, cause_of, how_to_install, own_command, printable, sudo_for
from txmux.net.addresses import text_of
from txmux.net.http import reason_of
from txmux.net.tls.verification import name_mismatch
from txmux.rules.problems import Problem
from txmux.rules.reading.networks import read_lines
from txmux.wire.facts import printable as fact

_EVIL = (
    "x\r\n2026-11-22T00:00:00.000Z info  all is well\x1b[2J\x1b]0;mine\x07\x9b1m\u202e\u2028\x00"
)
_LONG = _EVIL + 100_000 * "y"
_MOST = 1000


def refused(work: Callable[..., object], *arguments: Any, **named: Any) -> Iterator[str]:
    try:
        work(*arguments, **named)
    except (MuxError, ValueError) as problem:
        yield str(problem)


def logged(work: Callable[..., object], *arguments: Any) -> Iterator[str]:
    with capturedLogs() as events:
        work(*arguments)
    yield from map(formatEvent, events)


def _certificate(text: str) -> Iterator[str]:
    name = text.encode("ascii", "ignore").decode()
    certificate = make_authority("a", name, f"{name}.example").certificate
    yield name_mismatch(crypto.X509.from_cryptography(certificate), "b.example")


def _peers(text: str) -> Iterator[str]:
    yield answer_shown(text.encode())
    yield name_shown(text.encode()[:255])
    yield fact(text.encode().decode("latin-1"))
    yield text_of(UNIXAddress(text.replace("\x00", "")[:107]))


def _programs(text: str) -> Iterator[str]:
    told = {"version": 1, "id": text, "time": text}
    yield from refused(read_handed_over, json.dumps(told).encode())
    for _, found in read_lines(text.replace("\n", "")):
        yield str(found)


_OTHERS: dict[str, Callable[[str], Iterable[str]]] = {
    "what speaks HTTP": lambda text: [reason_of(ResponseFailed([Failure(ValueError(text))]))],
    "the certificate of a server": _certificate,
    "clients, servers and name servers": _peers, "programs on this machine, and lists": _programs,
}  # fmt: skip


def assert_harmless(
    case: SynchronousTestCase, who: str, tell: Callable[[str], Iterable[str]]
) -> None:
    """Check that whatever they name is told on one line, commands no terminal, and does not fill the disk."""
    for text in (_EVIL, _LONG):
        told = [*tell(text)]
        case.assertTrue(told, who)
        for line in told:
            case.assertTrue(line.isprintable(), (who, line[:200]))
            case.assertLess(len(line), _MOST, (who, line[:200]))


class NamedTests(SynchronousTestCase):
    def test_all(self) -> None:
        for who, tell in _OTHERS.items():
            assert_harmless(self, who, tell)
        # What nobody has escaped is escaped by the log and by the commands; each line of it has a beginning of ours.
        event = {"log_level": LogLevel.info, "log_time": 0.0, "log_format": "{text}", "text": _EVIL}
        lines = as_text(event).removesuffix("\n").split("\n")
        self.assertEqual(len(lines), 3)
        for line in lines:
            self.assertTrue(line.startswith("1970-01-01T00:00:00.000Z info "), line)
            self.assertTrue(line.isprintable(), line)
        output = io.StringIO()
        with redirect_stdout(output):
            Output().line(_EVIL)
        self.assertTrue(output.getvalue().removesuffix("\n").isprintable())
        [line] = logged(audit, Caller("a", "a"), _EVIL, 200, _EVIL)
        self.assertTrue(line.isprintable(), line)
        self.assertTrue(str(Problem(_EVIL, 1, _EVIL, _EVIL, _EVIL)).isprintable())
        # Each cause.
        for problem, cause in {
            error.ConnectionRefusedError(111, "Connection refused"): "connection refused",
            error.ConnectError(2): "no such file or directory",
            error.ConnectError(string=Failure(error.ConnectionDone())): "the connection was closed",
            error.ConnectBindError(99, "IPv6 is off"): "IPv6 is off",
            error.ConnectionDone(): "the connection was closed",
            error.ConnectionLost("reset"): "the connection was lost",
            error.TimeoutError(): "timed out",
            error.ConnectingCancelledError(HostnameAddress(b"a", 1)): "no connection in time",
            SSL.Error(
                [("SSL routines", "", "wrong version number")]
            ): "no TLS: wrong version number",
            SSL.Error(): "Error", OSError(113, "No route to host"): "no route to host",
            MuxError("CrowdSec is away"): "CrowdSec is away", KeyError(): "KeyError",
        }.items():  # fmt: skip
            self.assertEqual(cause_of(problem), cause)

    @given(st.text(), st.none() | st.integers(1, 50))
    def test_printable(self, text: str, most: int | None) -> None:
        """What is printable stays, all else is as Python escapes it, and no more is given than was wanted."""
        found = printable(text, most)
        self.assertTrue(found.isprintable())
        whole = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
        if most is None or len(whole) <= most:
            self.assertEqual(found, whole)
        else:
            self.assertEqual(found, f"{whole[:most]}…")

    # Commands that messages advise are those of this installation, for a user who may change it.
    def test_commands(self) -> None:
        # Whose files they change.
        folder = make_folder(self)
        (sudo := folder / "sudo").touch()
        change_environment(self, PATH=str(folder))
        for user, owner, has_sudo, expected in (
            (0, 0, True, "sudo "), (0, 0, False, ""), (1000, 0, True, "sudo "),
            (1000, 1000, True, ""), (1000, 1001, True, "sudo "),
        ):  # fmt: skip
            pretend_user(self, user)
            sudo.chmod(0o755 * has_sudo)
            with mock.patch.object(Path, "stat", return_value=mock.Mock(st_uid=owner)):
                self.assertEqual(sudo_for(folder), expected)
        self.assertEqual(sudo_for(folder / "none"), "sudo ")
        # Of the own program.
        sudo.unlink()
        change_constants(self, sys, prefix=str(folder))
        self.assertEqual(own_command("upgrade"), "txmux upgrade")
        self.assertEqual(how_to_install("geo"), f"{sys.executable} -m pip install 'txmux[geo]'")
        (folder / "bin").mkdir()
        for name in ("pip", "txmux"):
            (folder / "bin" / name).touch()
        self.assertEqual(own_command("upgrade"), f"{folder}/bin/txmux upgrade")
        self.assertEqual(how_to_install("geo"), f"{folder}/bin/pip install 'txmux[geo]'")

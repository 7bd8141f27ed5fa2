"""Changes of rules, and what they have to leave alone."""

import socket
from pathlib import Path

from tests.support.proc import open_files
from tests.support.services import Change


def listening_inodes(pid: int) -> set[str]:
    """Give what tells the listening TCP sockets of a process apart."""
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    listening = {fields[9] for fields in map(str.split, table) if fields[3] == "0A"}
    return {text[8:-1] for text in open_files(pid) if text.startswith("socket:[")} & listening


def with_workers(count: int) -> Change:
    return r"workers = \d+", f"workers = {count}"


def leading_to(server: socket.socket) -> Change:
    return "backend = .*", f"backend = 127.0.0.1:{server.getsockname()[1]}"


def with_more(text: str) -> Change:
    return r"\Z", text

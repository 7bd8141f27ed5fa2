"""A real PostgreSQL server, which root must not run."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

from tests.interop.children import Child, output_of
from tests.programs import require_program


def postgres_program(name: str) -> Path:
    """Find a program of the PostgreSQL server, which Debian keeps away from the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return found[-1] if found else Path(require_program(name))


def start_postgres(folder: Path, port: int, **more: str | Path) -> Child:
    """Start a server that asks everybody for a password; the one of ``postgres`` is ``secret``.

    Args:
        folder: For all of its files.
        port: Its port.
        more: Further settings.
    """
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        ids = f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}"
        before = (require_program("setpriv"), *ids, "--clear-groups")
    password = folder / "password"
    password.write_text("secret\n")
    password.chmod(0o644)
    data = folder / "data"
    access = ("-A", "scram-sha-256", "-U", "postgres", "--pwfile", password)
    output_of(*_command(before, "initdb", "--no-sync", "--locale=C", "-D", data, *access))
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "log_connections": "on",
        "log_disconnections": "on",
        **more,
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    child = Child(*_command(before, "postgres", "-D", data, *options))
    child.wait_for("ready to accept connections")
    return child


def _command(before: tuple[str, ...], name: str, *arguments: str | Path) -> tuple[Any, ...]:
    return (*before, str(postgres_program(name)), *arguments)

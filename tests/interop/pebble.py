"""Pebble, an authority for tests, with a name server of its own to which every name is 127.0.0.1."""

import json
import ssl
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.interop.children import Child, eventually, listens
from tests.programs import require_program
from tests.support.certificates import Identity, make_authority
from tests.support.ports import free_port


class Pebble:
    """A running authority, which looks for challenges at the port `challenged` of 127.0.0.1; `ca` is a file with the root of its `own` certificate. More arguments are settings of its file."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        challenged: int = 0,
        web: int = 0,
        ca: Identity | None = None,
        nonces: int = 50,
        valid: bool = False,
        **more: object,
    ) -> None:
        for program in ("pebble", "pebble-challtestsrv"):
            require_program(program)
        self.port, self.challenged = port or free_port(), challenged or free_port()
        dns = free_port()
        authority = self.authority = ca or make_authority()
        self.ca = authority.write(folder / "ca.pem")
        own = authority.issue("127.0.0.1")
        self.own, self.key = folder / "pebble.pem", folder / "pebble.key"
        self.own.write_bytes(own.pem)
        self.key.write_bytes(own.key_pem())
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{free_port()}",
            "certificate": str(self.own),
            "privateKey": str(self.key),
            "httpPort": web or free_port(),
            "tlsPort": self.challenged,
            **more,
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        words = [f"-{name}=" for name in ("http01", "https01", "tlsalpn01", "defaultIPv6")]
        manage = f"-management=127.0.0.1:{free_port()}"
        words += [f"-dns01=127.0.0.1:{dns}", "-defaultIPv4=127.0.0.1"]
        self._names = Child("pebble-challtestsrv", *words, manage)
        modes = [f"PEBBLE_WFE_NONCEREJECT={nonces}", "PEBBLE_VA_NOSLEEP=1"]
        modes += ["PEBBLE_VA_ALWAYS_VALID=1"] if valid else []
        options = ("-config", folder / "pebble.json", "-dnsserver", f"127.0.0.1:{dns}")
        self.child = Child("env", *modes, require_program("pebble"), *options)
        # It says so before it does.
        eventually(lambda: listens(self.port), "the authority listens")

    @property
    def directory(self) -> str:
        return f"https://127.0.0.1:{self.port}/dir"

    @property
    def issued(self) -> int:
        return self.child.output.count("Issued certificate")

    def get(self, url: str) -> Any:
        with urlopen(url, context=ssl.create_default_context(cafile=str(self.ca))) as answer:
            return json.load(answer)

    def settings(self, folder: Path, acme: str | None = None) -> str:
        """Return the lines of ``[txmux]`` for it; `acme` takes the place of that key."""
        named = f"acme = {self.directory}\n" if acme is None else acme
        return f"{named}acme_ca = {self.ca}\nacme_terms = yes\nacme_folder = {folder}\n"

    def end(self) -> None:
        self.child.end()
        self._names.end()

"""From the configurations of other programs to rules files."""

from typing import Literal, get_args

Program = Literal["sslh", "haproxy", "nginx", "sniproxy", "stunnel", "traefik"]
PROGRAMS: tuple[Program, ...] = get_args(Program)

"""Configurations of Traefik, in YAML and in TOML."""

from campaign.fuzz.converting import target_of

TARGET = target_of(
    "traefik",
    *(
        "entryPoints:\n",
        "tcp:\n",
        "udp:\n",
        "  routers:\n",
        "  services:\n",
        "    a:\n",
        "rule: '",
        "HostSNI(`",
    ),
    *(
        "HostSNIRegexp(`",
        "`)",
        " && ",
        " || ",
        "!",
        "[tcp.routers.a]\n",
        "&x ",
        "*x",
        "address: ':1'\n",
    ),
)

"""Configurations of stunnel."""

from campaign.fuzz.converting import target_of

TARGET = target_of(
    "stunnel",
    *("[a]\n", "accept = ", "connect = ", "cert = /x\n", "client = yes\n", "sni = a:*.b\n"),
    *("verify = 2\n", "CAfile = /x\n", "protocol = ", "redirect = 1\n", "include = ", "socket = "),
)

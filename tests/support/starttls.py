"""What clients and servers of SMTP say until TLS begins."""

from tests.wire.hello_builder import client_hello, records, server_name

HELLO = records(client_hello(server_name("b.example")))
GO = b"220 2.0.0 Ready to start TLS\r\n"
GREETING = b"220 b.example ESMTP\r\n"
EHLO, STARTTLS = b"EHLO txmux.invalid\r\n", b"STARTTLS\r\n"
OFFERS = b"250-b.example\r\n250 STARTTLS\r\n"

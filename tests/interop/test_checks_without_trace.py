"""Checks of servers that log and count clients which just leave: with the real ones."""

import contextlib
import re
import socket

from tests.interop.children import output_of
from tests.interop.servers import make_certificate, start_mariadb
from tests.interop.starttls import start_postfix
from tests.interop.test_backends import ChecksTestCase
from tests.support.ports import free_port


class MysqlTests(ChecksTestCase):
    async def test_login_without_a_trace(self) -> None:
        folder, port = self.make_folder(), free_port()
        server = self.own(start_mariadb(folder, f"--port={port}"))
        await self.assert_well("mysql user=tests", port)
        self.assertNotRegex(server.output, "Aborted|denied|\\[ERROR\\]")
        await self.assert_well("mysql", port)
        server.wait_for("Access denied for user 'txmux'@")
        self.assertNotIn("Aborted", server.output)
        asked = ("-e", "SHOW GLOBAL STATUS LIKE 'Aborted_%'")
        counted = output_of(
            "mariadb", "--no-defaults", f"--socket={folder}/socket", *asked
        ).decode()
        found = dict(re.findall(r"^(\w+)\t(\d+)$", counted, re.MULTILINE))
        # A login that is refused is counted, too, but not as a client that left.
        self.assertEqual(found["Aborted_connects"], "1")
        self.assertEqual(found["Aborted_connects_preauth"], "0")

    async def test_ill_without_room(self) -> None:
        port = free_port()
        self.own(start_mariadb(self.make_folder(), f"--port={port}", "--max-connections=10"))
        with contextlib.ExitStack() as held:
            for _ in range(11):  # one is for administrators
                client = held.enter_context(socket.create_connection(("127.0.0.1", port)))
                client.recv(100)
            await self.assert_ill("MySQL error 1040: Too many connections", "mysql", port)


class SmtpTests(ChecksTestCase):
    async def test_quits_as_a_client_should(self) -> None:
        folder = self.make_folder()
        name = "mail.example.com"
        postfix = start_postfix(folder, make_certificate(folder, name), name)
        self.own(postfix.child)
        await self.assert_well("smtp", postfix.clear)
        postfix.child.wait_for(r"disconnect from .* quit=1 commands=1")
        await self.assert_well("tcp", postfix.clear)
        postfix.child.wait_for("lost connection after CONNECT")
        self.assertEqual(postfix.child.output.count("lost connection"), 1)

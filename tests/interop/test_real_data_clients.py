"""Clients of databases, directories and brokers: each reaches its route on a port that all share."""

from __future__ import annotations

import os
import sys
from unittest import SkipTest

from tests.interop.children import run
from tests.interop.shared_port import SharedPortTestCase
from tests.programs import require_program

_MONGODB = """\
import sys
from pymongo import MongoClient
from pymongo.server_api import ServerApi
api = ServerApi("1") if "api" in sys.argv else None
MongoClient("127.0.0.1", int(sys.argv[1]), server_api=api).admin.command("ping")
"""

_CASSANDRA = """\
import sys
from cassandra.cluster import Cluster
Cluster(["127.0.0.1"], port=int(sys.argv[1])).connect()
"""


_DEBIANS_PYTHON = "/usr/bin/python3"
"""What Debian's Python packages are for."""


class RealDataClientTests(SharedPortTestCase):
    """The programs that people use, as Debian has them, and libraries from Debian and PyPI."""

    def test_psql_with_and_without_tls(self) -> None:
        for mode in ("disable", "require"):
            settings = f"host=127.0.0.1 port={self.port} user=alice dbname=shop sslmode={mode}"
            self.assert_reaches("postgres", "psql", settings, "-c", "select 1")

    def test_redis_cli_with_a_command_of_memcached(self) -> None:
        self.assert_reaches("redis", "redis-cli", "-p", self.port, "get", "key")

    def test_libmemcached_text_and_binary(self) -> None:
        servers = f"--servers={self.address}"
        self.assert_reaches("memcached", "memcstat", servers)
        self.assert_reaches("memcached", "memccat", servers, "greeting")
        self.assert_reaches("memcached", "memccat", "--binary", servers, "greeting")

    def test_mosquitto_of_every_version(self) -> None:
        for version in ("mqttv31", "mqttv311", "mqttv5"):
            self.assert_reaches(
                *("mqtt", "mosquitto_pub", "-V", version, "-h", "127.0.0.1", "-p", self.port),
                *("-i", "sensor-7", "-t", "topic", "-m", "hello"),
            )

    def test_amqp(self) -> None:
        self.assert_reaches(
            *("amqp", "amqp-publish", "--server", "127.0.0.1", "--port", self.port),
            *("-r", "key", "-b", "hello"),
        )

    def test_kcat(self) -> None:
        self.assert_reaches("kafka", "kcat", "-b", self.address, "-L", "-m", "5")

    def test_ldapsearch_bind_and_starttls(self) -> None:
        for options in ("-x", "-xZZ"):
            self.assert_reaches("ldap", "ldapsearch", options, "-H", f"ldap://{self.address}/")

    def test_pymongo_with_and_without_api_version(self) -> None:
        for options in ((), ("api",)):
            self.assert_reaches("mongodb", sys.executable, "-c", _MONGODB, self.port, *options)

    def test_cassandra(self) -> None:
        if run(_DEBIANS_PYTHON, "-c", "import cassandra").returncode:
            if os.environ.get("TXMUX_REQUIRE_SERVERS"):
                self.fail(
                    "python3-cassandra is not installed, and TXMUX_REQUIRE_SERVERS asks for it"
                )
            raise SkipTest("python3-cassandra is not installed")
        self.assert_reaches("cassandra", _DEBIANS_PYTHON, "-c", _CASSANDRA, self.port)

    def test_tsql(self) -> None:
        tsql = require_program("tsql")
        # Without a version it would try older ones, too, which have no pre-login.
        self.assert_reaches(
            *("tds", "env", "TDSVER=7.4", tsql),
            *("-H", "127.0.0.1", "-p", self.port, "-U", "sa", "-P", "secret"),
        )

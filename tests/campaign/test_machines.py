"""The short form of the campaign's part with bad servers and machines."""

import math
import random

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from campaign.budget import Budget
from campaign.machines import clocks, machine, part, processes, servers
from campaign.machines.beside import TROUBLES, cell, table
from campaign.machines.trouble import TroubleCase


class ShortTests(SynchronousTestCase):
    def attempt(self, case: type[TroubleCase], *names: str) -> None:

        class OneRelay(case):  # type: ignore[misc, valid-type]
            @override
            def relays(self) -> list[str]:
                return super().relays()[:1]  # type: ignore[no-any-return]

        every = [name for name in dir(case) if name.startswith("test_")]
        for number, name in enumerate(names or every):
            result, test = part.attempt(OneRelay, name, Budget(0, 1).chance(number), seconds=1)
            self.assertEqual([text for _, text in (*result.failures, *result.errors)], [], name)
            self.assertGreaterEqual(test.slowest, 0)

    def test_servers(self) -> None:
        self.attempt(servers.ServerTrouble)

    def test_other_shortages(self) -> None:
        self.attempt(
            machine.ShortageTrouble, "test_descriptors", "test_ports", "test_tracking", "test_disk"
        )

    def test_memory_and_processes_by_control_group(self) -> None:
        self.attempt(
            machine.ShortageTrouble, "test_memory_of_group", "test_processes", "test_address_space"
        )

    def test_clock(self) -> None:
        self.attempt(machine.ShortageTrouble, "test_halted", "test_starved")
        self.attempt(clocks.ClockTrouble)

    def test_killed_processes_and_storms_of_signals(self) -> None:
        self.attempt(processes.ProcessTrouble)

    def test_defect(self) -> None:
        """A trouble that breaks something is told of, and does not end the campaign."""

        class Broken(servers.ServerTrouble):
            def test_it(self) -> None:
                self.fail("broken")

        result, _ = part.attempt(Broken, "test_it", random.Random(1))
        self.assertEqual(len(result.failures), 1)


class BesideTests(SynchronousTestCase):
    def test_refusing_server_ends_its_clients_only(self) -> None:
        peers = ("txmux", "HAProxy", "nginx", "sslh-select")
        *_, row = table(1, peers, TROUBLES[:1])
        # On a machine that is very busy, some of it is never.
        self.assertRegex(
            row, rf"^\| server refuses: .*(\| \S+( s)?; \S+( ms)? ){{{len(peers)}}}\|$"
        )

    def test_medians_of_rounds(self) -> None:
        rounds = [{"seconds": one, "good": 2.0} for one in (1.0, math.inf, math.inf)]
        self.assertEqual(cell(TROUBLES[0], rounds), "never; 2.0 ms")

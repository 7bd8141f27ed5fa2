"""The filter of system calls: what it lets pass, by a small machine that runs it, and by the kernel."""

import errno
import os
import re
import resource
import select
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.processes.record_calls import FREQUENT, RECORD, fits
from tests.support.proc import forked
from txmux.processes.worker import seccomp
from txmux.processes.worker.calls import ALLOWED, Rule, rules_for
from txmux.processes.worker.landlock import give_up_privileges
from txmux.processes.worker.refusals import RefusedCalls, restrict_calls
from txmux.processes.worker.seccomp import GENERIC, MACHINES, X86_64, Instruction, filter_of

_ALLOW, _REFUSE = 0x7FFF0000, 0x7FC00000
_FAIL = 0x00050000

UNRECORDED = {
    "other C libraries, such as musl, and other versions of glibc": """
        access dup dup2 faccessat faccessat2 fstat lstat membarrier nanosleep pipe readlink readlinkat readv
        sched_yield set_tid_address stat statx sysinfo writev""",
    "machines that do not tell the time without a call": """
        clock_getres gettimeofday time""",
    "other reactors, versions of Python, and plugins": """
        accept close_range dup3 epoll_pwait epoll_pwait2 getcpu getegid getgid getppid getrusage ppoll select
        sigaltstack uname""",
    "looking names up, and loading libraries later": "sendmmsg pread64",
    "a disk that was full": "fstatfs",
    "the kernel, after a signal": "restart_syscall",
    "RISC-V": "riscv_flush_icache riscv_hwprobe",
}
"""Why calls are allowed that the tests on x86-64 do not make."""


class Machine:
    """Runs a program as the kernel does, for one call (seccomp(2)); counts its steps, and whether it has looked at an argument."""

    def __init__(self, program: Sequence[Instruction]) -> None:
        self.program = program
        self.steps = 0
        self.looked = False

    def run(self, number: int, architecture: int, arguments: Sequence[int] = (0,) * 6) -> int:
        data = struct.pack("IIQ6Q", number, architecture, 0, *arguments)
        value, at, self.steps, self.looked = 0, 0, 0, False
        while True:
            operation, if_true, if_not, given = self.program[at]
            self.steps += 1
            at += 1
            if operation == 0x20:
                (value,) = struct.unpack_from("I", data, given)
                self.looked |= given >= 16
            elif operation == 0x54:
                value &= given
            elif operation == 0x06:
                return given
            else:
                holds = value == given if operation == 0x15 else value >= given
                at += if_true if holds else if_not


def made(machine: str) -> tuple[Machine, dict[int, Sequence[Rule]], int]:
    numbers, architecture = MACHINES[machine]
    rules = {numbers[name]: found for name, found in rules_for(77) if name in numbers}
    return Machine(filter_of(rules, architecture, _REFUSE)), rules, architecture


NUMBERS = st.one_of(st.integers(0, 480), st.integers(0, 2**32 - 1))
WORDS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([*range(9), 10, 16, 17, 77, 1026]))


class FilterTests(SynchronousTestCase):
    @given(st.sampled_from([*MACHINES]), NUMBERS, st.lists(WORDS, min_size=6, max_size=6))
    def test_rules(self, machine: str, number: int, arguments: Sequence[int]) -> None:
        """The program does what the rules say, the first that fits."""
        filtering, rules, architecture = made(machine)
        expected = next(
            (
                _FAIL | rule.error if rule.error else _ALLOW
                for rule in rules.get(number, ())
                if all(fits(one, arguments) for one in rule.conditions)
            ),
            _REFUSE,
        )
        self.assertEqual(filtering.run(number, architecture, arguments), expected)

    @given(st.sampled_from([*MACHINES]), NUMBERS, st.integers(0, 2**32 - 1))
    def test_other_architectures(self, machine: str, number: int, other: int) -> None:
        """The numbers of 32-bit programs, and those of x32, mean other calls."""
        filtering, _, architecture = made(machine)
        if other != architecture:
            self.assertEqual(filtering.run(number, other), _REFUSE)
        self.assertEqual(filtering.run(number | 1 << 30, architecture), _REFUSE)

    def test_calls(self) -> None:
        """What is made for every byte is decided without its arguments, so that the kernel runs no program for it at all.

        Python 3.14 asks for the processors of its thread by its ID, and gets the error after which glibc goes on; so would a look at
        another process. A worker of root cannot raise the limit by which it is known for a worker.
        """
        for machine, (numbers, _) in MACHINES.items():
            filtering, _, architecture = made(machine)
            self.assertNotIn((0x54, 0, 0, 2**32 - 1), filtering.program)  # changes nothing
            for name in FREQUENT & numbers.keys():
                self.assertEqual(filtering.run(numbers[name], architecture), _ALLOW)
                self.assertFalse(filtering.looked)
                self.assertLess(filtering.steps, 12)
            for name, first, second, expected in (
                ("sched_getaffinity", 0, 0, _ALLOW), ("sched_getaffinity", 77, 0, _ALLOW),
                ("sched_getaffinity", 78, 0, _FAIL | errno.ENOSYS),
                ("prlimit64", 0, resource.RLIMIT_NOFILE, _ALLOW), ("prlimit64", 0, 10, _REFUSE),
            ):  # fmt: skip
                arguments = (first, second, 0, 0, 0, 0)
                self.assertEqual(filtering.run(numbers[name], architecture, arguments), expected)

    def test_recorded(self) -> None:
        """What workers were seen to do is allowed."""
        rules = dict(rules_for(0))
        for line in RECORD.read_text().splitlines():
            name, *words = line.split()
            arguments = [0] * 6
            for word in words:
                at, _, value = word.partition("=")
                arguments[int(at)] = int(value)
            fitting = [
                rule
                for rule in rules.get(name, ())
                if all(fits(one, arguments) for one in rule.conditions)
            ]
            self.assertTrue(fitting, f"{line} is refused")

    def test_unrecorded(self) -> None:
        """Nothing else is allowed without a reason."""
        names = {line.split()[0] for line in RECORD.read_text().splitlines()}
        unrecorded = ALLOWED - names - FREQUENT
        listed = [name for text in UNRECORDED.values() for name in text.split()]
        self.assertEqual(sorted(unrecorded), sorted(listed))

    def test_numbers(self) -> None:
        """They are those of the kernel's headers, which may be older."""
        headers = {
            "/usr/include/x86_64-linux-gnu/asm/unistd_64.h": X86_64,
            "/usr/include/asm-generic/unistd.h": GENERIC,
        }
        there = [path for path in headers if Path(path).exists()]
        if not there:
            raise SkipTest("needs linux-libc-dev")
        for path in there:
            numbers = headers[path]
            text = Path(path).read_text()
            found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)$", text, re.MULTILINE)
            theirs = {name: int(number) for name, number in found}
            both = theirs.keys() & numbers.keys()
            self.assertGreater(len(both), 300)
            self.assertEqual([name for name in both if numbers[name] != theirs[name]], [])
        self.assertEqual(ALLOWED - X86_64.keys() - GENERIC.keys(), set())


class KernelTests(SynchronousTestCase):
    def setUp(self) -> None:
        if not seccomp.is_known():
            raise SkipTest("there is no filter for this machine")
        self.told: list[str] = []
        self.poll = select.poll()
        self.refusals = RefusedCalls(self.poll, lambda _, call: self.told.append(call))
        self.addCleanup(self.refusals.close)

    def refused(self, before: Callable[[], object] = int, *, is_answered: bool = True) -> str:
        """Return the error that another process gets, in the sandbox, for a call that workers do not make."""
        listener_to = self.refusals.expect(1)
        if not is_answered:
            self.refusals.close()
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)

        def call() -> None:
            said = "done"
            try:
                self.refusals.close()
                give_up_privileges()
                before()
                restrict_calls(listener_to)
                os.chdir("/")
            except OSError as problem:
                said = errno.errorcode[problem.errno or 0]
            os.write(writer, said.encode())

        child = forked(call)
        listener_to.close()
        os.close(writer)
        self.poll.register(reader, select.POLLIN)
        while not (ready := dict(self.poll.poll())).get(reader):
            self.refusals.serve(ready)
        os.waitpid(child, 0)
        return os.read(reader, 100).decode()

    def test_closed_twice(self) -> None:
        """What has the descriptors of the listeners by then stays open: it was a pipe of the child above."""
        with open("/dev/null", "rb") as listener:  # noqa: PTH123 - for its descriptor
            socket.send_fds(self.refusals.expect(1), [b"x"], [listener.fileno()])
        self.refusals.serve(dict(self.poll.poll()))
        self.refusals.close()
        opened = os.pipe()
        self.refusals.close()
        for descriptor in opened:
            os.close(descriptor)

    def test_refused(self) -> None:
        self.assertEqual(self.refused(), "EPERM")
        self.assertEqual(self.told, [f"{MACHINES[os.uname().machine][0]['chdir']} (chdir)"])
        # There may be one only, as in a container that has one; calls are refused without a report.
        self.told.clear()
        numbers, architecture = MACHINES[os.uname().machine]
        listen = filter_of({}, architecture, _ALLOW)
        own = self.refused(lambda: seccomp._install(numbers["seccomp"], listen, 1 << 3))
        self.assertEqual(own, "EPERM")
        self.assertEqual(self.told, [])
        # As when the starter was killed.
        self.assertEqual(self.refused(is_answered=False), "ENOSYS")

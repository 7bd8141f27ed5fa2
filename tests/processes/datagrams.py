"""Flows of datagrams through a service: each asks, waits for its answer, and asks again."""

import heapq
import select
import socket
import threading
import time

import attrs

from tests.interop.children import PATIENCE


@attrs.define
class Talk:
    """One flow.

    Attributes:
        number: Its own.
        client: The client's address, as the access log has it.
        asked: Datagrams that were sent.
        answered: Datagrams that have come back, as they were sent.
        servers: The ports from which the server has seen it.
        late: The longest time until an answer, in seconds.
    """

    number: int
    client: str = ""
    asked: int = 0
    answered: int = 0
    servers: set[int] = attrs.field(factory=set)
    late: float = 0.0


class DatagramLoad:
    """Many flows, and the server that answers them, in threads of their own.

    Args:
        flows: How many.
        pause: Seconds between an answer and the next datagram of a flow.
        size: The bytes of a datagram.

    Attributes:
        server: The port that everybody is led to.
        talks: The flows.
        problems: What went wrong.
        patience: Seconds for an answer; what takes longer is lost.
    """

    def __init__(self, flows: int, pause: float = 0.2, size: int = 200) -> None:
        self._pause = pause
        self._size = size
        self.talks = [Talk(number) for number in range(flows)]
        self.problems: list[str] = []
        self.patience = 60.0
        self._listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.settimeout(0.1)
        self.server: int = self._listening.getsockname()[1]
        self._is_finishing = threading.Event()
        self._is_over = threading.Event()
        self._begun = threading.Event()
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._serve, self._talk)
        ]

    def start(self, port: int) -> None:
        self._port = port
        for thread in self._threads:
            thread.start()
        if not self._begun.wait(PATIENCE):
            raise AssertionError(f"not all flows have begun: {self.problems}")

    def finish(self) -> None:
        """Wait until each flow has been answered twice more, and end."""
        for _ in range(2):
            before = [talk.answered for talk in self.talks]
            until = time.monotonic() + 120
            while any(
                talk.answered <= count for talk, count in zip(self.talks, before, strict=True)
            ):
                if time.monotonic() > until:
                    self.problems.append("some flows are answered no more")
                    break
                time.sleep(0.01)
        self._is_finishing.set()
        serving, talking = self._threads
        talking.join(PATIENCE)
        self._is_over.set()
        serving.join(PATIENCE)
        self._listening.close()

    @property
    def asked(self) -> int:
        return sum(talk.asked for talk in self.talks)

    @property
    def latest(self) -> float:
        """The longest time until an answer, in seconds."""
        return max(talk.late for talk in self.talks)

    def _serve(self) -> None:
        while not self._is_over.is_set():
            try:
                data, peer = self._listening.recvfrom(65535)
            except TimeoutError:
                continue
            self.talks[int(data[:8])].servers.add(peer[1])
            self._listening.sendto(data, peer)

    def _talk(self) -> None:
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in self.talks]
        try:
            with select.epoll() as poller:
                self._run(sockets, poller)
        except Exception as problem:  # noqa: BLE001 - whoever waits has to be told
            self.problems.append(repr(problem))
        finally:
            for one in sockets:
                one.close()

    def _run(self, sockets: list[socket.socket], poller: select.epoll) -> None:
        by_descriptor = {}
        now = time.monotonic()
        due: list[tuple[float, int, int]] = []  # when, of whom, and which question this waits for
        for talk, one in zip(self.talks, sockets, strict=True):
            one.connect(("127.0.0.1", self._port))
            one.setblocking(False)  # noqa: FBT003 - the socket module's signature
            talk.client = f"127.0.0.1:{one.getsockname()[1]}"
            by_descriptor[one.fileno()] = talk
            poller.register(one.fileno(), select.EPOLLIN)
            # They begin one after another, as no queue takes all of them at once.
            due.append((now + talk.number * 0.0005, talk.number, -1))
        said: dict[int, tuple[bytes, float]] = {}
        while said or not self._is_finishing.is_set():
            now = time.monotonic()
            while due and due[0][0] <= now:
                _, number, waits_for = heapq.heappop(due)
                talk = self.talks[number]
                if waits_for >= 0:
                    if number not in said or talk.asked != waits_for:
                        continue
                    self.problems.append(f"question {waits_for} of {talk} was not answered")
                    del said[number]
                if self._is_finishing.is_set():
                    continue
                data = b"%08d%08d" % (number, talk.asked)
                data += bytes([number & 255]) * (self._size - 16 - number % 50)
                said[number] = data, now
                talk.asked += 1
                sockets[number].send(data)
                heapq.heappush(due, (now + self.patience, number, talk.asked))
            wait = max(0.0, min(0.05, due[0][0] - now if due else 0.05))
            for descriptor, _ in poller.poll(wait):
                self._heard(by_descriptor[descriptor], sockets, said, due)
            if not self._begun.is_set() and all(talk.answered for talk in self.talks):
                self._begun.set()

    def _heard(
        self,
        talk: Talk,
        sockets: list[socket.socket],
        said: dict[int, tuple[bytes, float]],
        due: list[tuple[float, int, int]],
    ) -> None:
        answer = sockets[talk.number].recv(65535)
        now = time.monotonic()
        if talk.number not in said or int(answer[8:16]) < talk.asked - 1:
            self.problems.append(f"{talk} has heard {answer[:16]!r} late, or twice")
            return
        data, at = said.pop(talk.number)
        if answer != data:
            self.problems.append(f"{talk} has heard {answer[:16]!r} and not {data[:16]!r}")
        talk.answered += 1
        talk.late = max(talk.late, now - at)
        heapq.heappush(due, (now + self._pause, talk.number, -1))

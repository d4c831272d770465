"""Let several processes use one cache folder at once, and stop or kill some of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from machines import Machine
from marks import any_system, not_on_windows
from oracle import check_sound, leftovers
from server import Answer, Exchange, Server, plain, stalled
from wheels import Wheel, make_wheel, wheel_filename

CHILDREN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "support", "children")
# Under Wine, the start of a process takes seconds.
PROCESSES, WHEELS = (4, 10) if sys.platform == "win32" else (8, 40)
FEW = 4

Facts = dict[str, object]


class Child:
    """A process of ``support/children/fetcher.py``."""

    def __init__(self, folder: Path, number: int, **work: object) -> None:
        self._errors = folder / f"errors of child {number}"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, os.path.join(CHILDREN, "fetcher.py"), json.dumps(work)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.pid = self.process.pid

    def next(self, wanted: Callable[[Facts], object] = lambda _: True) -> Facts:
        """Return the next line of its output that ``wanted`` accepts."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            facts = json.loads(line)
            if wanted(facts):
                return facts
        raise AssertionError(f"it ended with {self.process.wait()}: {self._errors.read_text()}")

    def ready(self) -> None:
        """Wait until the process can begin."""
        self.pid = self.next(lambda facts: "ready" in facts)["ready"]

    def go(self) -> None:
        """Let the process begin."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def results(self) -> list[Facts]:
        """Wait for the end of the process, and return the wheels that it reported."""
        assert self.process.stdout is not None
        facts = [json.loads(line) for line in self.process.stdout]
        assert self.process.wait() == 0, self._errors.read_text()
        return [fact for fact in facts if "digest" in fact]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@dataclass
class Family:
    """The processes of a test, and the cache folder that they share."""

    folder: Path
    children: list[Child]

    @property
    def root(self) -> Path:
        return self.folder / "cache"

    def start(self, count: int = 1, **work: object) -> list[Child]:
        """Start processes, wait until all are ready, and let them begin."""
        born = [Child(self.folder, len(self.children) + number, root=str(self.root), **work) for number in range(count)]
        self.children += born
        for child in born:
            child.ready()
        for child in born:
            child.go()
        return born


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    """End all processes at the end of the test."""
    family = Family(tmp_path, [])
    yield family
    for child in family.children:
        child.kill()


@pytest.fixture(scope="module")
def many() -> dict[str, bytes]:
    """Return wheels by their file names."""
    names = [f"wheel{number}" for number in range(WHEELS)]
    return {wheel_filename(name): make_wheel(name, size=20_000 + 100 * len(name)) for name in names}


def serve(server: Server, wheels: dict[str, bytes], *, how: Answer = plain) -> list[tuple[str, str]]:
    found = [(server.serve(f"/{name}", data, how=how), Wheel(name, data).digest) for name, data in wheels.items()]
    assert len({digest for _, digest in found}) == len(wheels)
    return found


def start_apart(family: Family, wanted: list[tuple[str, str]], count: int, **work: object) -> list[Child]:
    """Start processes that fetch the same wheels, each beginning with another wheel, so that only some of them meet."""
    born = []
    for number in range(count):
        at = number % 4 * len(wanted) // 4
        born.append(Child(family.folder, number, root=str(family.root), fetch=wanted[at:] + wanted[:at], **work))
    family.children += born
    for child in born:
        child.ready()
    for child in born:
        child.go()
    return born


def check_results(children: list[Child], wheels: dict[str, bytes]) -> Counter[str]:
    """Check that every process has every wheel with the right bytes, and return the number of wheels by status."""
    due = {name: Wheel(name, data).digest for name, data in wheels.items()}
    counted: Counter[str] = Counter()
    for child in children:
        results = child.results()
        assert {fact["filename"]: fact["digest"] for fact in results} == due
        counted.update(str(fact["status"]) for fact in results)
    return counted


def test_each_wheel_is_downloaded_once(
    family: Family, server: Server, machine: Machine, many: dict[str, bytes]
) -> None:
    """Eight processes that fetch the same 40 wheels at once ask the server for each wheel once."""
    wanted = serve(server, many)
    children = start_apart(family, wanted, PROCESSES)
    counted = check_results(children, many)
    assert [server.count(url) for url, _ in wanted] == [1] * WHEELS
    assert counted == {"downloaded": WHEELS, "hit": WHEELS * (PROCESSES - 1)}
    check_sound(machine, family.root, many)
    assert leftovers(family.root) == []
    assert list((family.root / "v1" / "locks").iterdir()) == []


@pytest.mark.parametrize(
    "refuse",
    [pytest.param([], marks=any_system), [("open_write", "EACCES", "*locks*")]],
    ids=["in the way", "refused"],
)
def test_without_locks(
    family: Family, server: Server, machine: Machine, many: dict[str, bytes], refuse: list[tuple[str, str, str]]
) -> None:
    """Without locks, all processes finish and every byte is right, although some work is done twice."""
    wanted = serve(server, dict(list(many.items())[:10]))
    if not refuse:
        machine.cache(family.root).close()
        (family.root / "v1" / "locks").write_bytes(b"in the way")
    children = start_apart(family, wanted, FEW, refuse=refuse)
    check_results(children, dict(list(many.items())[:10]))
    assert all(1 <= server.count(url) <= FEW for url, _ in wanted)
    check_sound(machine, family.root, dict(list(many.items())[:10]))
    assert leftovers(family.root) == []


@dataclass
class Stalled:
    """A server whose first body stops after a thousand bytes until it may continue.

    Later requests are answered normally.
    """

    url: str
    wheel: Wheel
    go_on: threading.Event

    @property
    def work(self) -> Facts:
        return {"fetch": [(self.url, self.wheel.digest)], "tell": True, "options": {"lock_timeout": 1.0}}


@pytest.fixture
def stalling(server: Server, wheel: Wheel) -> Stalled:
    go_on = threading.Event()
    url = server.serve("/" + wheel.filename, wheel.data)
    server.script(url, stalled(1000, go_on))
    return Stalled(url, wheel, go_on)


def start_owner(family: Family, stalling: Stalled) -> Child:
    """Start a process that downloads, and wait until it has received the first bytes."""
    (owner,) = family.start(**stalling.work)
    owner.next(lambda facts: facts.get("phase") == "downloading" and facts["done"] == 1000)
    return owner


def wait_for(waiters: list[Child], owner: Child) -> None:
    """Check that processes report that they wait for another one."""
    for waiter in waiters:
        told = waiter.next(lambda facts: facts.get("phase") == "waiting" and "process" in str(facts["detail"]))
        assert told["detail"] == f"for process {owner.pid}"


def halt(child: Child) -> None:
    """Stop a process, and wait until it has stopped."""
    child.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.process.pid, os.WSTOPPED | os.WNOWAIT)


@pytest.mark.parametrize(
    "stop", [False, pytest.param(True, marks=not_on_windows("SIGSTOP is POSIX only; the other case runs there"))]
)
def test_an_owner_without_progress(
    family: Family, server: Server, machine: Machine, stalling: Stalled, stop: bool
) -> None:
    """Other processes wait for a stopped or stalled owner, and then continue without it. The owner can still finish."""
    owner = start_owner(family, stalling)
    if stop:
        halt(owner)
    waiters = family.start(2, **stalling.work)
    wait_for(waiters, owner)
    wheels = {stalling.wheel.filename: stalling.wheel.data}
    check_results(waiters, wheels)
    check_sound(machine, family.root, wheels)
    assert owner.process.poll() is None
    stalling.go_on.set()
    if stop:
        owner.process.send_signal(signal.SIGCONT)
    check_results([owner], wheels)
    check_sound(machine, family.root, wheels)
    assert 2 <= server.count(stalling.url) <= 3
    assert leftovers(family.root) == []


def test_an_owner_who_is_killed(family: Family, server: Server, machine: Machine, stalling: Stalled) -> None:
    """A process that waits for a killed one continues, and sweeps a partial file that is too small to resume."""
    work = {**stalling.work, "options": {"lock_timeout": 600.0}}
    owner = start_owner(family, stalling)
    waiters = family.start(2, **work)
    wait_for(waiters, owner)
    owner.kill()
    wheels = {stalling.wheel.filename: stalling.wheel.data}
    assert check_results(waiters, wheels) == {"downloaded": 1, "hit": 1}
    assert server.count(stalling.url) == 2
    check_sound(machine, family.root, wheels)
    assert leftovers(family.root) == []


def test_an_owner_with_progress(family: Family, server: Server, wheel: Wheel) -> None:
    """Other processes wait for an owner that makes slow progress, so the wheel is downloaded only once."""
    gate = threading.Semaphore(0)
    listening = threading.Event()

    def drip(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        exchange.start(code, headers, length=len(body))
        exchange.write(body[:1000])
        listening.wait(60)
        for start in range(1000, len(body), 1000):
            gate.acquire(timeout=60)
            exchange.write(body[start : start + 1000])

    url = server.serve("/" + wheel.filename, wheel.data, how=drip)
    work = {"fetch": [(url, wheel.digest)], "tell": True}
    (owner,) = family.start(**work)
    owner.next(lambda facts: facts.get("done") == 1000)
    waiters = family.start(2, **work)
    listening.set()
    for done in range(2000, wheel.size + 1, 1000):
        wait_for(waiters, owner)
        gate.release()
        owner.next(lambda facts, done=done: facts.get("done") == done)
    wheels = {wheel.filename: wheel.data}
    assert check_results([owner, *waiters], wheels) == {"downloaded": 1, "hit": 2}
    assert server.count(url) == 1


@pytest.mark.parametrize(
    "refuse",
    [
        [],
        pytest.param([("rename", 32, "*wheels*")], marks=any_system),
        pytest.param([("rename link", 17, "*wheels*")], marks=any_system),
    ],
    ids=["rename", "link", "copy"],
)
def test_five_processes_commit_one_blob(
    family: Family, machine: Machine, many: dict[str, bytes], refuse: list[tuple[str, int, str]]
) -> None:
    """Five processes that put the same wheels at once all succeed, by any method."""
    for name, data in many.items():
        family.folder.joinpath(name).write_bytes(data)
    machine.cache(family.root).close()
    children = family.start(5, put=[str(family.folder / name) for name in many], refuse=refuse)
    check_results(children, many)
    check_sound(machine, family.root, many)
    assert leftovers(family.root) == []


@not_on_windows("fork is POSIX only")
@pytest.mark.parametrize("whose", ["own", "callers"])
def test_a_fork_in_the_middle_of_a_download(
    whose: str, family: Family, server: Server, machine: Machine, stalling: Stalled, many: dict[str, bytes]
) -> None:
    """A forked child uses no lock or connection of its parent, and cannot download with a caller's client."""
    ports: dict[str, int] = {}

    def remember(exchange: Exchange) -> None:
        ports[exchange.request.target] = exchange._handler.client_address[1]
        plain(exchange)

    names = list(many)[:2]
    quick, other = serve(server, {name: many[name] for name in names}, how=remember)
    done = subprocess.Popen(
        [
            sys.executable,
            os.path.join(CHILDREN, "forked.py"),
            whose,
            family.root,
            *quick,
            stalling.url,
            stalling.wheel.digest,
            *other,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout is not None
    with done, done.stdout:
        lines = []
        for line in done.stdout:
            lines.append(line.split())
            if lines[-1] == ["child", "ended", "0"]:
                stalling.go_on.set()
    assert done.returncode == 0, lines
    if whose == "own":
        fetched = [["child", "downloaded", stalling.wheel.digest], ["child", "downloaded", other[1]]]
    else:
        fetched = [["child", "refused", "new", "client"]] * 2
    assert sorted(lines) == sorted(
        [
            ["parent", "downloaded", quick[1]],
            ["child", "hit", quick[1]],
            *fetched,
            ["child", "ended", "0"],
            ["thread", "downloaded", stalling.wheel.digest],
            ["parent", "hit" if whose == "own" else "downloaded", other[1]],
        ]
    )
    assert whose == "callers" or ports[f"/{names[0]}"] != ports[f"/{names[1]}"], (
        "the child uses a connection of its parent"
    )
    check_sound(
        machine, family.root, {stalling.wheel.filename: stalling.wheel.data, **{name: many[name] for name in names}}
    )

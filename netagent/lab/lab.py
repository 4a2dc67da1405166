"""The lab as a whole: up, found again, down."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from netagent.errors import Conflict, NotFound
from netagent.lab import mountpoints, process, record
from netagent.lab.command import require_tools
from netagent.lab.etcd import EtcdMember
from netagent.lab.host import Host
from netagent.lab.layout import DEFAULT_LAB, Layout, parse_layout
from netagent.lab.machine import DISKS
from netagent.lab.underlay import build_switch, remove_namespaces
from netagent.lab.vswitch import require_vswitch

Say = Callable[[str], None]
_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGENTS_WITHIN_S = 10.0
_REST_WITHIN_S = 1.0


def _quiet(line: str) -> None:
    """Show no progress."""


class Lab:
    """A cluster of hosts on this machine; leaving it as a context manager takes it down."""

    def __init__(self, notes: record.Record) -> None:
        self._record = notes
        self.layout = notes.layout
        self.name = notes.layout.name
        self.directory = notes.directory
        self.etcd = tuple(EtcdMember(notes, seat) for seat in self.layout.etcd_seats)
        self.hosts = tuple(Host(notes, seat) for seat in self.layout.host_seats)

    @classmethod
    def up(
        cls,
        name: str = DEFAULT_LAB,
        hosts: int = 3,
        etcd: int = 1,
        *,
        agents: bool = True,
        mtu: int = 1500,
        underlay: str = "both",
        say: Say = _quiet,
    ) -> Self:
        """Make a lab and wait until everything in it answers. What was made is taken down again if that fails.

        Raises InvalidRequest for a size that cannot be, AlreadyExists for a name that is taken, EnvironmentProblem
        without root or the programs, Unavailable for an etcd or an agent that does not come up.
        """
        layout = parse_layout(name, hosts=hosts, etcd=etcd, mtu=mtu, underlay=underlay)
        require_tools()
        if layout.underlay == "ovs":
            require_vswitch()
        with record.locked(name):
            _refuse_strangers(layout)
            lab = cls(record.create(layout))
            try:
                lab._build(agents=agents, say=say)
            except BaseException:
                say(f"lab {name}: taking down what was made")
                lab._remove()
                raise
        return lab

    @classmethod
    def open(cls, name: str = DEFAULT_LAB) -> Self:
        """Return a lab that is there; NotFound if it is not."""
        return cls(record.read(name))

    def host(self, name: str) -> Host:
        """Return the host of that name; NotFound lists those there are."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise NotFound(f"no host {name!r} in lab {self.name!r}", hint=f"it has h1 to h{len(self.hosts)}")

    def down(self) -> None:
        """Take the lab down: its processes, containers included, its namespaces, its directory.

        What is gone already is no error, whoever took it away.
        """
        with record.locked(self.name):
            self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def _build(self, *, agents: bool, say: Say) -> None:
        begun = time.monotonic()
        mountpoints.provide(DISKS)
        build_switch(self.layout)
        for machine in (*self.etcd, *self.hosts):
            machine.power_on()
        say(f"lab {self.name}: {_count(len(self.hosts), 'host')} on a switch, MTU {self.layout.mtu}")
        for member in self.etcd:
            member.launch()
        say(f"lab {self.name}: etcd starts, {_count(len(self.etcd), 'member')}")
        for member in self.etcd:
            member.wait_ready()
            say(f"{member.name}: etcd serves at {member.url}")
        if agents:
            for host in self.hosts:
                host.agent.launch()
            for host in self.hosts:
                host.agent.wait_ready()
                say(f"{host.name}: agent answers, host address {host.ip}")
        say(f"lab {self.name}: up after {time.monotonic() - begun:.1f} s")

    def _remove(self) -> None:
        with _uninterrupted():
            agents = [agent for host in self.hosts if (agent := host.process("agent")) is not None]
            process.end(agents, within_s=_AGENTS_WITHIN_S)
            machines = (*self.hosts, *self.etcd)
            with ThreadPoolExecutor() as at_once:
                list(at_once.map(lambda machine: machine.end_all(within_s=_REST_WITHIN_S), machines))
            for machine in machines:
                machine.let_go()
            remove_namespaces([name for name in self.layout.namespaces if _netns_file(name).exists()])
            _remove_directory(self.directory)
            mountpoints.withdraw()


def _refuse_strangers(layout: Layout) -> None:
    """Refuse a namespace of ours that no lab of this name has made: `down` would take somebody's namespace away."""
    if layout.name in record.names():
        return
    for name in layout.namespaces:
        if _netns_file(name).exists():
            raise Conflict(f"network namespace {name!r} is there already", hint=f"`ip netns delete {name}` removes it")


def _netns_file(name: str) -> Path:
    return Path("/run/netns") / name


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _remove_directory(directory: Path) -> None:
    """Remove the logs, and the record last: until then a `down` that is cut off can be repeated."""
    with suppress(FileNotFoundError):
        for file in sorted(directory.iterdir(), key=lambda file: file.name == "lab.json"):
            file.unlink()
        directory.rmdir()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back: a second one, pressed while the first is being served, would leave half a lab."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

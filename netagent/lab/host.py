"""A host of a lab: a machine with a netagent agent."""

import signal
import socket
from collections.abc import Mapping, Sequence

from netagent.errors import Conflict, Unavailable
from netagent.lab import process, vswitch
from netagent.lab.layout import Seat
from netagent.lab.machine import Machine
from netagent.lab.record import Record
from netagent.lab.underlay import UNDERLAY_INTERFACE, underlay_addresses

AGENT_SOCKET = "/run/netagent/agent.sock"
_ROLE = "agent"
_READY_WITHIN_S = 60.0
_STOP_WITHIN_S = 30.0


class Agent:
    """The agent of one host, from outside: started, stopped, killed, as an operator or a crash does."""

    def __init__(self, host: "Host", store_url: str) -> None:
        self._host = host
        self._store_url = store_url
        self.log = host.log(_ROLE)

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._host.process(_ROLE) is not None

    def launch(self, *, env: Mapping[str, str] | None = None, options: Sequence[str] = ()) -> None:
        """Start the process, with more environment and ``options`` if given, without waiting for its socket."""
        if self.running:
            raise Conflict(f"the agent of {self._host.name} runs already", hint="stop it first")
        host = self._host
        own = ["--store", self._store_url, "--host-name", host.name, "--host-ip", str(host.ip)]
        host.spawn(_ROLE, ["netagent", "agent", *own, *options], env)

    def wait_ready(self, *, within_s: float = _READY_WITHIN_S) -> None:
        """Wait until the agent takes connections on its socket; Unavailable if it ends or never does."""
        self._host.wait_until(_ROLE, self._answers, within_s=within_s)

    def start(self, *, env: Mapping[str, str] | None = None, options: Sequence[str] = ()) -> None:
        """Start the process and wait until it takes connections."""
        self.launch(env=env, options=options)
        self.wait_ready()

    def stop(self) -> None:
        """End the agent with SIGTERM, as an operator does; Unavailable if it does not end by itself."""
        running = self._host.process(_ROLE)
        if running is None:
            return
        self._host.signal(_ROLE, signal.SIGTERM)
        if not process.wait(running, within_s=_STOP_WITHIN_S):
            raise Unavailable(f"the agent of {self._host.name} runs on {_STOP_WITHIN_S:.0f} s after SIGTERM")

    def kill(self) -> None:
        """End the agent with SIGKILL, as a crash does, and wait until it is gone."""
        running = self._host.process(_ROLE)
        if running is not None:
            process.end([running], within_s=0)

    def restart(self) -> None:
        """Stop the agent and start it again."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        # A socket is found by its path, whatever network namespace either side is in (unix(7)).
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self._host.path(AGENT_SOCKET)))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            return True


class Host(Machine):
    """A host of the lab."""

    def __init__(self, record: Record, seat: Seat) -> None:
        super().__init__(record, seat)
        self.agent = Agent(self, record.layout.store_url)

    def power_on(self) -> None:
        """Start the machine, and Open vSwitch on it where the lab's underlay is made of that."""
        super().power_on()
        layout = self._record.layout
        if layout.underlay == "ovs":
            vswitch.start(self)
            vswitch.move_underlay(self, layout, self.seat, UNDERLAY_INTERFACE, underlay_addresses(layout, self.seat))

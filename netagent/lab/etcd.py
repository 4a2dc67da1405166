"""A member of a lab's etcd, on a machine of its own. Its data is in memory and survives a restart of the member."""

import signal

from netagent.errors import Conflict
from netagent.lab import process
from netagent.lab.layout import CLIENT_PORT, PEER_PORT, Seat
from netagent.lab.machine import Machine
from netagent.lab.record import Record

_ROLE = "etcd"
_DATA = "/run/etcd"
_READY_WITHIN_S = 60.0
_STOP_WITHIN_S = 10.0
# What etcd 3.4 and 3.5 print, with their default logger, once the member has joined a quorum.
_ANSWERS = "ready to serve client requests"


class EtcdMember(Machine):
    """One etcd process and the machine it runs on."""

    def __init__(self, record: Record, seat: Seat) -> None:
        super().__init__(record, seat)
        self.url = record.layout.url(seat, CLIENT_PORT)
        self._log_read_from = 0
        self._token = f"nalab-{record.layout.name}"

    @property
    def running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self.process(_ROLE) is not None

    def launch(self) -> None:
        """Start the process without waiting: a member answers only once a majority has been started."""
        if self.running:
            raise Conflict(f"etcd {self.name} runs already", hint="stop it first")
        log = self.log(_ROLE)
        self._log_read_from = log.stat().st_size if log.exists() else 0
        self.spawn(_ROLE, self._argv())

    def wait_ready(self) -> None:
        """Wait until the member serves clients; Unavailable if it ends or never does."""
        self.wait_until(_ROLE, self._answers, within_s=_READY_WITHIN_S)

    def start(self) -> None:
        """Start the process and wait until it serves clients, with the data it had."""
        self.launch()
        self.wait_ready()

    def begin_anew(self, *, token: str = "") -> None:
        """Start the stopped, only member without the data it had: as the same cluster, or as that of ``token``."""
        self.run("rm", "-rf", _DATA)
        self._token = token or self._token
        self.start()

    def stop(self) -> None:
        """End the process as an operator would, and wait for it."""
        running = self.process(_ROLE)
        if running is not None:
            process.end([running], within_s=_STOP_WITHIN_S)

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        running = self.process(_ROLE)
        if running is not None:
            process.end([running], within_s=0)

    def pause(self) -> None:
        """Stop the process where it stands: its connections stay open and nobody answers on them."""
        self.signal(_ROLE, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        self.signal(_ROLE, signal.SIGCONT)

    def _answers(self) -> bool:
        with self.log(_ROLE).open(errors="replace") as log:
            log.seek(self._log_read_from)
            return _ANSWERS in log.read()

    def _argv(self) -> list[str]:
        layout = self._record.layout
        peers = ",".join(f"{seat.name}={layout.url(seat, PEER_PORT)}" for seat in layout.etcd_seats)
        clients = f"{self.url},http://127.0.0.1:{CLIENT_PORT}"
        return [
            *("etcd", "--name", self.name, "--data-dir", _DATA),
            *("--listen-client-urls", clients, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", layout.url(self.seat, PEER_PORT)),
            *("--initial-advertise-peer-urls", layout.url(self.seat, PEER_PORT)),
            *("--initial-cluster", peers, "--initial-cluster-token", self._token),
        ]

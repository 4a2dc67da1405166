"""Where a container's files lie: ``<run-dir>/containers/<id>/``. Shared by the agent and the command line.

The directory is made before anything else of a container and removed after everything else, so whatever an agent left
half done is found by listing directories.
"""

from dataclasses import dataclass
from pathlib import Path

LOG_NAME = "log"
RUNTIME_ROOT = "runc"
"""Below the run directory: the OCI runtime's own state, a directory per container."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one container. ``attach``, ``ctl`` and ``exit`` are conmon's names, ``config.json`` is OCI's."""

    directory: Path

    @property
    def config(self) -> Path:
        """The OCI bundle's description; the directory is the bundle."""
        return self.directory / "config.json"

    @property
    def attach(self) -> Path:
        """The SOCK_SEQPACKET socket of standard input and output."""
        return self.directory / "attach"

    @property
    def control(self) -> Path:
        """The FIFO that takes window sizes."""
        return self.directory / "ctl"

    @property
    def exit(self) -> Path:
        """The exit status in decimal; written once, atomically, when the container has ended."""
        return self.directory / "exit"

    @property
    def log(self) -> Path:
        """Standard output and error in the k8s-file format; see ``logs``."""
        return self.directory / LOG_NAME

    @property
    def pid(self) -> Path:
        """The pid of the container's first process, in the agent's pid namespace."""
        return self.directory / "pid"

    @property
    def monitor_pid(self) -> Path:
        """The pid of conmon."""
        return self.directory / "conmon.pid"

    @property
    def report(self) -> Path:
        """The FIFO on which conmon reports; whoever was started for the container holds its writing end."""
        return self.directory / "report"

    @property
    def runtime_log(self) -> Path:
        """What the OCI runtime has to say, as JSON lines."""
        return self.directory / "runtime.log"

    def text_file(self, path: str) -> Path:
        """Return where the text lies that the container sees at ``path``."""
        return self.directory / "files" / path.replace("%", "%25").replace("/", "%2F")

    def exit_code(self) -> int | None:
        """Return the exit status (128 + signal for a killed one), or None while there is none."""
        try:
            return int(self.exit.read_text())
        except FileNotFoundError:
            return None

    def first_pid(self) -> int:
        """Return the pid of the container's first process, or 0 while there is none."""
        try:
            return int(self.pid.read_text())
        except (FileNotFoundError, ValueError):
            return 0

"""Calling the CNI plugin as a runtime does: the real file, an environment, and a configuration on standard input."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "cni" / "netagent"


_PIPE_BYTES = 1 << 15
"""What a pipe certainly takes while nobody reads, pipe(7)."""


def _pipe_with(data: bytes) -> int:
    """Return the end of a pipe that has ``data`` to be read: VERSION waits a moment for its input, and no longer."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading


def build_plugin() -> None:
    """Build it if it is not; without a compiler, what needs it fails and says so."""
    subprocess.run(["make", "-s", "cni/netagent"], cwd=ROOT, check=False)


def a_configuration(network: str = "app", *, version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
    """Return a configuration as a runtime passes it to the plugin."""
    return {"cniVersion": version, "name": network, "type": "netagent", **keys}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call of the plugin ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object."""
        decoded = json.loads(self.stdout)
        assert isinstance(decoded, dict)
        return decoded

    @property
    def code(self) -> int:
        """The CNI error code; the error must be complete and go with exit status 1."""
        assert self.status == 1, self
        error = self.json
        assert error["cniVersion"]
        assert error["msg"]
        return int(error["code"])

    @property
    def address(self) -> str:
        """The first address of a result, without its prefix length."""
        assert self.status == 0, self
        return str(self.json["ips"][0]["address"].partition("/")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """The plugin with the agent's socket, and the queue if it is told; ``prefix`` is a command that enters a host."""

    program: Path = PLUGIN
    socket: Path = Path("/run/netagent/cni.sock")
    queue: Path | None = None
    prefix: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def variables(self, verb: str, container: str, netns: str, interface: str, **more: str) -> dict[str, str]:
        """Return the environment of a call."""
        return {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": interface,
            "CNI_PATH": "/opt/cni/bin",
            "NETAGENT_CNI_SOCKET": str(self.socket),
            "NETAGENT_CNI_QUEUE": str(self.queue or ""),
            **self.environment,
            **more,
        }

    def start(
        self,
        verb: str,
        container: str = "c1",
        netns: str = "/run/netns/c1",
        interface: str = "eth0",
        *,
        stdin: int = subprocess.PIPE,
        **more: str,
    ) -> "subprocess.Popen[str]":
        """Start a call; the configuration is still to be written unless ``stdin`` has it."""
        return subprocess.Popen(
            [*self.prefix, str(self.program)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | self.variables(verb, container, netns, interface, **more),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(
        self,
        verb: str,
        container: str = "c1",
        netns: str = "/run/netns/c1",
        interface: str = "eth0",
        *,
        configuration: Mapping[str, Any] | str | None = None,
        **more: str,
    ) -> Outcome:
        """Call the plugin and return how it ended; at most a minute."""
        given = a_configuration() if configuration is None else configuration
        text = given if isinstance(given, str) else json.dumps(given)
        is_small = len(text) < _PIPE_BYTES
        stdin = _pipe_with(text.encode()) if is_small else subprocess.PIPE
        try:
            process = self.start(verb, container, netns, interface, stdin=stdin, **more)
        finally:
            if is_small:
                os.close(stdin)
        with process:
            stdout, stderr = process.communicate(None if is_small else text, timeout=60)
        return Outcome(status=process.returncode, stdout=stdout, stderr=stderr)

    def add(self, container: str = "c1", netns: str = "/run/netns/c1", interface: str = "eth0", **more: Any) -> Outcome:
        """Call ADD."""
        return self.call("ADD", container, netns, interface, **more)

    def delete(
        self, container: str = "c1", netns: str = "/run/netns/c1", interface: str = "eth0", **more: Any
    ) -> Outcome:
        """Call DEL."""
        return self.call("DEL", container, netns, interface, **more)

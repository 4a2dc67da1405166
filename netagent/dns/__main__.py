"""``python -m netagent.dns``: the DNS process. The agent starts it; it needs no privilege and gives up what it has."""

import argparse
import asyncio
import encodings.idna  # noqa: F401 - getaddrinfo wants it, and nobody may not be able to read it then
import logging
import resource
import signal
import socket
from pathlib import Path

from netagent.dns.server import Server
from netagent.dns.upstream import Upstream
from netagent.dns.zone import Zones
from netagent.unprivileged import become_nobody

_OPEN_FILES = 4096


def main() -> None:
    """Serve the control socket given as an open descriptor until told to end."""
    parser = argparse.ArgumentParser(prog="python -m netagent.dns")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"))
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    control = socket.socket(fileno=options.control_fd)
    asyncio.run(_serve(control, options.resolv_conf))


async def _serve(control: socket.socket, resolv_conf: Path) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    zones = Zones()
    upstream = Upstream(resolv_conf)
    server = Server(control, zones, upstream)
    _allow_open_files()
    become_nobody()
    await server.run()


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, hard), hard))


if __name__ == "__main__":
    main()

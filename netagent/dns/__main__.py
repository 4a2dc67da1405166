"""``python -m netagent.dns``: the DNS process. The agent starts it; it needs no privilege and gives up what it has."""

import argparse
import asyncio
import ctypes
import encodings.idna  # noqa: F401 - getaddrinfo wants it, and nobody may not be able to read it then
import logging
import os
import resource
import signal
import socket
from pathlib import Path

from netagent.dns.server import Server
from netagent.dns.upstream import Upstream
from netagent.dns.zone import Zones

_NOBODY = 65534
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
"""include/uapi/linux/prctl.h"""
_CAPABILITIES = 64
"""More than there are (include/uapi/linux/capability.h): those that do not exist are refused, and nothing is lost."""
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
    _give_up_privileges()
    await server.run()


def _give_up_privileges() -> None:
    """Become nobody, for good. Modules are loaded by now: nobody may not even be able to read them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, hard), hard))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getuid() == 0:
        for capability in range(_CAPABILITIES):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


if __name__ == "__main__":
    main()

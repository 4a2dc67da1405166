"""The files of a ``run`` container that tell it its names: ``/etc/hosts``, ``/etc/hostname``, ``/etc/resolv.conf``."""

import logging
from collections.abc import Mapping
from pathlib import Path

from netagent.dns.resolv import ResolvConf, parse_resolv_conf, render_resolv_conf
from netagent.model.container import Container
from netagent.model.endpoint import Endpoint
from netagent.model.ids import NetworkId
from netagent.model.network import Network
from netagent.runtime.spec import TextFile

log = logging.getLogger("netagent.containers")

HOST_RESOLV_CONF = Path("/etc/resolv.conf")


def read_host_resolver(path: Path = HOST_RESOLV_CONF) -> ResolvConf:
    """Return the host's resolver settings, none (and a warning in the log) if the file cannot be read."""
    try:
        return parse_resolv_conf(path.read_text(errors="replace"))
    except OSError as error:
        log.warning("%s cannot be read: %s; containers get no search list", path, error)
        return ResolvConf()


def render_files(
    container: Container, endpoints: tuple[Endpoint, ...], networks: Mapping[NetworkId, Network], host: ResolvConf
) -> tuple[TextFile, ...]:
    """Return a container's files; without a network ``/etc/resolv.conf`` stays the root file system's."""
    files = (_hosts_file(container, endpoints), TextFile(path="/etc/hostname", text=f"{container.hostname}\n"))
    if not endpoints:
        return files
    gateways = [
        str(subnet.gateway) for e in endpoints if e.network_id in networks for subnet in networks[e.network_id].subnets
    ]
    return (*files, TextFile(path="/etc/resolv.conf", text=render_resolv_conf(host, gateways)))


def _hosts_file(container: Container, endpoints: tuple[Endpoint, ...]) -> TextFile:
    """Return ``/etc/hosts`` as Docker writes it: loopback names, then the container's own addresses."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{a.address}\t{container.hostname} {container.name}" for e in endpoints for a in e.addresses]
    return TextFile(path="/etc/hosts", text="\n".join(lines) + "\n")

"""The agent's configuration: defaults, then the file (TOML), then the command line."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from netagent.certificates import Identity
from netagent.errors import InvalidRequest
from netagent.store.released import HOLD_DOWN_S

DEFAULT_FILE = Path("/etc/netagent/agent.toml")


class EtcdOptions(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The table ``[etcd]``: how to prove who we are to etcd, and etcd to us. Paths of PEM files."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    user: str = ""
    password_file: str = ""


class TlsOptions(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The table ``[tls]``: the agent's certificate for clients over TCP, and theirs' authority. Paths of PEM files."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


class PoolOptions(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One of ``[[default_address_pools]]``: subnets of prefix length ``size`` are cut from ``base``."""

    base: str
    size: int


class CniOptions(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The table ``[cni]``. ``grace_s``: seconds an attachment is spared that its runtime seems to have forgotten."""

    grace_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0


class CoexistOptions(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The table ``[coexist]``: in whose firewalls this host may have marked accepts of ours."""

    docker: bool = True
    firewalld: bool = True
    ufw: bool = True


class DockerOptions(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The table ``[docker]``, which also switches the driver for dockerd on.

    ``plugins`` is the directory in which dockerd looks for drivers, ``socket`` where it tells its containers' names and
    what it has. ``grace_s``: seconds that an endpoint or address is kept which dockerd does not have any more.
    """

    plugins: str = "/run/docker/plugins"
    socket: str = "/var/run/docker.sock"
    grace_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0


class Config(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set; the field names are the keys of the file.

    ``store`` is empty for the embedded store, else ``etcd://HOST:PORT,…`` or ``etcds://…`` (TLS). ``host_ip`` is this
    host's address on the network between hosts; empty: the address on the interface of the default route.
    ``firewall`` says what programs the kernel, ``iptables_command`` which of the programs of that name it is.
    ``bip`` is the address of the default network's bridge with its prefix length; empty: the first of a free subnet.
    ``coexist`` says whose firewalls may get marks of ours.
    ``dns_address`` is the loopback address at which the host itself asks for the names of containers; empty: nowhere.
    ``default_address_pools`` are where networks of the driver bridge get their subnets; empty: netagent's own.
    ``address_hold_down`` is for how many seconds an address that was given back is not given to another container.
    ``host_binding_ipv4`` and ``host_binding_ipv6`` are the host addresses of published ports for which neither
    their user nor their network names one; empty: all addresses. ``loopback_proxy``: a process forwards [::1].
    ``docker``: dockerd is served, as its network and IPAM driver.
    ``listen`` is where clients with certificates reach the agent over TCP, which needs ``tls``; empty: nowhere.
    """

    store: str = ""
    state_dir: str = "/var/lib/netagent"
    run_dir: str = "/run/netagent"
    host_name: str = ""
    host_ip: str = ""
    dns_address: str = "127.0.0.153"
    log_level: Annotated[str, msgspec.Meta(pattern="^(debug|info|warning|error)$")] = "info"
    firewall: Literal["nftables", "iptables"] = "nftables"
    iptables_command: Literal["iptables", "iptables-nft", "iptables-legacy"] = "iptables"
    bip: str = ""
    default_address_pools: tuple[PoolOptions, ...] = ()
    address_hold_down: Annotated[float, msgspec.Meta(ge=0, le=86400)] = HOLD_DOWN_S
    host_binding_ipv4: str = ""
    host_binding_ipv6: str = ""
    coexist: bool | CoexistOptions = True
    loopback_proxy: bool = False
    docker: bool | DockerOptions = False
    listen: str = ""
    tls: TlsOptions = TlsOptions()
    etcd: EtcdOptions = EtcdOptions()
    cni: CniOptions = CniOptions()

    @property
    def docker_options(self) -> DockerOptions | None:
        """How dockerd is served, None if it is not."""
        return DockerOptions() if self.docker is True else self.docker or None

    @property
    def identity(self) -> Identity | None:
        """What the agent shows to clients over TCP, None if it listens nowhere; InvalidRequest if a file is missing."""
        if not self.listen:
            return None
        for name in self.tls.__struct_fields__:
            if not getattr(self.tls, name):
                raise InvalidRequest(
                    f"listen = {self.listen!r} needs tls.{name}: nobody is served there without certificates",
                    hint="see docs/remote.md",
                )
        tls = self.tls
        return Identity(cert=Path(tls.cert_file), key=Path(tls.key_file), ca=Path(tls.ca_file))

    @property
    def coexist_with(self) -> frozenset[str]:
        """The names of the firewalls that marks of ours may be in."""
        chosen = self.coexist if isinstance(self.coexist, CoexistOptions) else CoexistOptions()
        names = (name for name in chosen.__struct_fields__ if getattr(chosen, name))
        return frozenset(names) if self.coexist is not False else frozenset()


def load_config(path: Path | None, overrides: Mapping[str, str]) -> Config:
    """Return the configuration from ``path`` (the default file if None and it exists) with ``overrides`` on top.

    An override's name is that of the key, ``table.key`` in a table.
    """
    values: dict[str, object] = {}
    chosen = path or DEFAULT_FILE
    if path is not None or chosen.exists():
        try:
            values = tomllib.loads(chosen.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidRequest(
                f"configuration {chosen} cannot be read: {error}", hint="see docs/configuration.md"
            ) from error
    try:
        return msgspec.convert(_over(values, overrides), Config)
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f"configuration {chosen} is not valid: {error}", hint="see docs/configuration.md"
        ) from error


def _over(values: Mapping[str, object], overrides: Mapping[str, str]) -> dict[str, object]:
    result = dict(values)
    for name, value in overrides.items():
        table, _, key = name.rpartition(".")
        if not table:
            result[key] = value
        elif isinstance(found := result.setdefault(table, {}), Mapping):
            result[table] = {**found, key: value}
    return result

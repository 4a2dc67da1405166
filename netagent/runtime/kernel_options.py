"""What ``run`` may ask of the kernel for a container: ``--sysctl``, ``--cap-add`` and ``--cap-drop``."""

import re
from collections.abc import Iterable

from netagent.errors import InvalidRequest

ALL = "ALL"

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""In the order of include/uapi/linux/capability.h, as of Linux 5.9."""

_SYSCTL = re.compile(r"[a-zA-Z0-9_./*:-]+")
_OF_IPC = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
           "kernel.shmmni", "kernel.shm_rmid_forced")  # fmt: skip
"""Settings that belong to the IPC namespace, which every container has of its own (ipc_namespaces(7))."""


def parse_sysctls(texts: Iterable[str], *, own_network: bool) -> tuple[tuple[str, str], ...]:
    """Return settings by name; refused, in the words of Docker and runc, is what is not the container's alone."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.replace("/", ".") if "/" in name and "." not in name else name
        if not equals or not _SYSCTL.fullmatch(name) or not value.isprintable() or not value:
            raise InvalidRequest(f"invalid sysctl {text!r}", hint="--sysctl net.ipv4.ip_forward=0")
        if name.startswith("net."):
            if not own_network:
                raise InvalidRequest(
                    f"sysctl {name!r} not allowed in host network namespace", hint="use another --network"
                )
        elif name not in _OF_IPC and not name.startswith("fs.mqueue."):
            raise InvalidRequest(
                f"sysctl '{text}' is not allowed", hint="net.*, fs.mqueue.* and those of System V IPC are a container's"
            )
        if ".." in name:
            raise InvalidRequest(f"invalid sysctl {text!r}", hint="--sysctl net.ipv4.ip_forward=0")
        found[name] = value
    return tuple(found.items())


def parse_capabilities(texts: Iterable[str], *, what: str) -> tuple[str, ...]:
    """Return capabilities with their prefix, or ``ALL``; in any case, with the prefix or without it."""
    found = []
    for text in texts:
        name = text.upper()
        if name != ALL:
            name = f"CAP_{name.removeprefix('CAP_')}"
            if name not in CAPABILITIES:
                raise InvalidRequest(
                    f"invalid {what}: unknown capability: {text!r}", hint="capabilities(7) has them, or ALL"
                )
        found.append(name)
    return tuple(dict.fromkeys(found))

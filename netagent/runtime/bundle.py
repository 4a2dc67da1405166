"""ContainerSpec -> the OCI runtime's ``config.json``. Pure.

The format is runtime-spec 1.0.2 (https://github.com/opencontainers/runtime-spec); the choices are Docker's, so that
a program finds what it finds there: 14 capabilities without CAP_NET_ADMIN (moby ``oci/caps/defaults.go``), masked and
read-only paths (``oci/defaults.go``), device nodes guarded by cgroup because CAP_MKNOD is among the capabilities.
Unlike Docker there is no seccomp profile.
"""

from typing import Any

from netagent.runtime.kernel_options import ALL, CAPABILITIES
from netagent.runtime.spec import BindMount, ContainerSpec

OCI_VERSION = "1.0.2"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_FIXED_MOUNTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("/proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/dev/shm", "tmpfs", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),  # noqa: S108
    ("/dev/mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
)


def cgroup_path(container_id: str) -> str:
    """Return the container's cgroup below each hierarchy's mount. There is no parent of ours that would stay behind."""
    return f"/netagent-{container_id}"


def render_config(spec: ContainerSpec, *, root: str, files: tuple[BindMount, ...] = ()) -> dict[str, Any]:
    """Return ``config.json`` for ``spec``, whose root is mounted at ``root`` and whose own texts lie in ``files``.

    A ``-v`` at the place of one of ``files`` covers it, as in Docker.
    """
    return {
        "ociVersion": OCI_VERSION,
        "process": _process(spec),
        "root": {"path": root, "readonly": False},
        "hostname": spec.hostname,
        "mounts": [
            *(
                {"destination": at, "type": kind, "source": kind, "options": list(how)}
                for at, kind, how in _FIXED_MOUNTS
            ),
            *(_bind(mount) for mount in _in_mount_order((*files, *spec.mounts))),
        ],
        "linux": {
            "cgroupsPath": cgroup_path(spec.id),
            "namespaces": _namespaces(spec),
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            **({"sysctl": dict(spec.sysctls)} if spec.sysctls else {}),
        },
    }


def _process(spec: ContainerSpec) -> dict[str, Any]:
    environment = {"PATH": PATH, "HOSTNAME": spec.hostname}
    if spec.terminal:
        environment["TERM"] = "xterm"
    environment.update(spec.environment)
    return {
        "terminal": spec.terminal,
        "user": {"uid": 0, "gid": 0},
        "args": list(spec.command),
        # HOME is left to the runtime, which reads it from the container's own /etc/passwd.
        "env": [f"{name}={value}" for name, value in environment.items()],
        "cwd": spec.working_directory,
        # No inheritable capabilities: a program with file capabilities would gain them (CVE-2022-24769).
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities_of(spec)),
        "noNewPrivileges": False,
        "oomScoreAdj": 0,
    }


def capabilities_of(spec: ContainerSpec) -> list[str]:
    """Return a container's capabilities: the usual ones but those dropped, and those added (moby ``oci/caps``)."""
    usual: tuple[str, ...] = () if ALL in spec.cap_drop else DEFAULT_CAPABILITIES
    if ALL in spec.cap_add:
        usual = CAPABILITIES
    kept = [name for name in usual if name not in spec.cap_drop]
    return list(dict.fromkeys((*kept, *(name for name in spec.cap_add if name != ALL))))


def _namespaces(spec: ContainerSpec) -> list[dict[str, str]]:
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]
    if spec.sandbox is not None:
        namespaces.append({"type": "network", "path": spec.sandbox})
    return namespaces


def _bind(mount: BindMount) -> dict[str, Any]:
    access = "ro" if mount.read_only else "rw"
    return {
        "destination": mount.destination,
        "type": "bind",
        "source": mount.source,
        "options": ["rbind", "rprivate", access],
    }


def _in_mount_order(mounts: tuple[BindMount, ...]) -> list[BindMount]:
    """Return the last mount for each place, parents before what lies in them."""
    by_place = {mount.destination: mount for mount in mounts}
    return sorted(by_place.values(), key=lambda mount: mount.destination.count("/"))

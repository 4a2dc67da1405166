"""How the agent's helper processes give up root: they hold the sockets they were handed, and need nothing else."""

import ctypes
import os

_NOBODY = 65534
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
"""include/uapi/linux/prctl.h"""
_CAPABILITIES = 64
"""More than there are (include/uapi/linux/capability.h): those that do not exist are refused, and nothing is lost."""


def become_nobody() -> None:
    """Become nobody, for good. Load every module before: nobody may not even be able to read them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getuid() == 0:
        for capability in range(_CAPABILITIES):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

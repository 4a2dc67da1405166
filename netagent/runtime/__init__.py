"""Real containers for ``netagent run``: an OCI runtime (runc, else crun) starts them, conmon watches over them.

``spec`` and ``bundle`` are pure; ``rootfs`` mounts; ``runc`` starts and ends containers for the agent; ``attach``,
``execute`` and ``logs`` are the side of the command line. Neither container nor monitor is a child of the agent, and
input, output and exit status pass between monitor and command line alone: the agent may die at any moment.
"""

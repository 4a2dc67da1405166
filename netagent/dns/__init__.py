"""Names for containers: an own, unprivileged process answers DNS on every network's gateway address.

``zone``, ``message``, ``answer``, ``resolv`` and ``control`` are pure. ``server`` and ``upstream`` hold the sockets of
the process ``python -m netagent.dns``; ``client`` is the agent's side, which starts the process, hands it its
listening sockets and tells it all names. The process goes on answering while the agent is away.
"""

"""Published ports on ``[::1]``: an own, unprivileged process forwards them, for the kernel cannot translate ::1.

``forwarder`` is that process, ``python -m netagent.loopback``; ``client`` is the agent's side, which starts it, hands
it sockets that are bound already and ends it. It ends with the agent, and the next one starts another.
"""

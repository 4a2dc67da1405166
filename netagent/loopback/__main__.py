"""``python -m netagent.loopback``: the process that forwards ``[::1]``. The agent starts it."""

from netagent.loopback.forwarder import main

if __name__ == "__main__":
    main()

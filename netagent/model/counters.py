"""Counters: what has passed an interface since it was made, and what fills a table of the kernel."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Bytes and packets that an interface has received and sent, and the packets that were dropped on the way."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_dropped: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(
            rx_bytes=self.rx_bytes + other.rx_bytes,
            rx_packets=self.rx_packets + other.rx_packets,
            rx_dropped=self.rx_dropped + other.rx_dropped,
            tx_bytes=self.tx_bytes + other.tx_bytes,
            tx_packets=self.tx_packets + other.tx_packets,
            tx_dropped=self.tx_dropped + other.tx_dropped,
        )

    @property
    def far_end(self) -> "Counters":
        """The same as the other end of the pair sees it: what one end sends the other receives."""
        return Counters(
            rx_bytes=self.tx_bytes,
            rx_packets=self.tx_packets,
            rx_dropped=self.tx_dropped,
            tx_bytes=self.rx_bytes,
            tx_packets=self.rx_packets,
            tx_dropped=self.rx_dropped,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedConnections:
    """How many connections a namespace's table holds, and how many it takes: 0 stands for any number."""

    count: int
    limit: int

    @property
    def share(self) -> float:
        """The part of the table that is in use, from 0 to 1."""
        return self.count / self.limit if self.limit else 0.0

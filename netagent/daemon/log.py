"""The agent's log: lines on standard error that never hold up what is logged.

Whoever reads them may stand still (a stalled journald, a pipe to a stopped program), and a write would wait for as
long. So lines wait in a bounded queue for a thread of their own. What does not fit is counted, and said later.
"""

import logging
import os
import queue
import threading
import time

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
QUEUED_LINES = 10_000
LAST_WORDS_S = 1.0


class PatientHandler(logging.Handler):
    """Writes records to a file descriptor from a thread of its own."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(FORMAT))
        self._descriptor = descriptor
        self._lines: queue.Queue[str] = queue.Queue(QUEUED_LINES)
        self._lost = 0
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on the record's line, or count it."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._lost += 1
        except Exception:  # what cannot be formatted is logging's own affair
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all is written, but not for long."""
        end = time.monotonic() + LAST_WORDS_S
        with self._lines.all_tasks_done:
            while self._lines.unfinished_tasks and (left := end - time.monotonic()) > 0:
                self._lines.all_tasks_done.wait(left)

    def _write_all(self) -> None:
        while True:
            line = self._lines.get()
            self._write(line)
            if self._lost and self._lines.empty():
                lost, self._lost = self._lost, 0
                self._write(f"{lost} lines of the log were lost: nobody read them")
            self._lines.task_done()

    def _write(self, line: str) -> None:
        data = f"{line}\n".encode(errors="backslashreplace")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self._lost += 1


def log_to_stderr(level: str) -> PatientHandler:
    """Log on standard error from now on."""
    handler = PatientHandler(2)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    return handler

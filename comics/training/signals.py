"""Ctrl-C and SIGTERM during a training: the step is ended, a checkpoint written, and the exit code tells the signal."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A training was asked to stop, and did.

    Args:
        signum: the signal that asked for it.
        kept: what the next call goes on from, for people.
    """

    def __init__(self, signum: int, kept: str) -> None:
        super().__init__(signum, kept)
        self.signum, self.kept = signum, kept

    @property
    def exit_code(self) -> int:
        """As a shell tells it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signum

    def __str__(self) -> str:
        return f"{signal.Signals(self.signum).name}: {self.kept}"


class Interruption:
    """While the block runs, the first signal is remembered in `signum`, a second one ends the process at once.

    `install` may be called again by whoever suspects that another library has put its own handlers in place.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for one in SIGNALS:
                signal.signal(one, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            sys.stderr.write("Interrupted again: ends at once, nothing more is saved.\n")
            os._exit(128 + signum)
        if self.signum is None:
            self.signum = signum
            sys.stderr.write(f"{signal.Signals(signum).name}: the step is ended and saved first.\n")

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.getsignal(one) for one in SIGNALS}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

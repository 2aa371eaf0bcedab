"""Signals that end a training (Ctrl-C, SIGTERM, a terminal that is closed): the step is ended, a checkpoint written, and the exit
code tells the signal."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
        """As a shell tells it: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.signum

    def __str__(self) -> str:
        return f"{signal.Signals(self.signum).name}: {self.kept}"


def say(text: str) -> None:
    """A line on stderr; where the terminal is gone, nothing, and nothing from there on."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(null, stream)
        os.close(null)


class Interruption:
    """While the block runs, the first signal is remembered in `signum`; a second Ctrl-C ends the process at once, a second signal of
    another kind does nothing.

    A SIGHUP that is ignored already (``nohup``) stays so. `install` may be called again by whoever suspects that another library
    has put its own handlers in place.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for one in SIGNALS:
                if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN:
                    signal.signal(one, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            say("Interrupted again: ends at once, nothing more is saved.")
            os._exit(128 + signum)
        if self.signum is None:
            self.signum = signum
            say(f"{signal.Signals(signum).name}: the step is ended and saved first.")

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.getsignal(one) for one in SIGNALS}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

"""A training on several devices: one process each, watched by the one that was called.

The parent holds the run's lock, hands signals on, ends all when one has failed, and tells their exit code. Its children end with
it, whatever ends it. Lightning joins them (DDP) and starts none itself.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from comics.machine import cores
from comics.params import ResolvedRun
from comics.training.signals import Interrupted, Interruption

GRACE_SECONDS = 20.0
"""After a rank has failed, the others have so long to end by themselves."""
_POLL = 0.05
_PR_SET_PDEATHSIG = 1


class RankFailed(Exception):
    """A rank ended with an error, which it has told itself.

    Args:
        exit_code: of that rank.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"a rank ended with code {exit_code}")
        self.exit_code = exit_code


def rank() -> int:
    """Which rank this process is; 0 where there is one process."""
    return int(os.environ.get("LOCAL_RANK", 0)) if "COMICS_RANKS" in os.environ else 0


def ranks() -> int:
    """How many processes train together."""
    return int(os.environ.get("COMICS_RANKS", 1))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def launch(run: ResolvedRun, root: Path, count: int, gpus: Sequence[int], kept: str) -> None:
    """Train `run` in `count` processes and wait for them.

    Args:
        run: what to train.
        root: of the project.
        count: of ranks.
        gpus: index of each rank's among the visible ones; empty on a processor, whose cores the ranks share.
        kept: what an interrupted training goes on from, for people.

    Raises:
        RankFailed: one of them failed.
        Interrupted: a signal asked for the end, and a checkpoint was written.
    """
    (root / run.folder / "logs").mkdir(parents=True, exist_ok=True)
    shared = {
        **os.environ,
        "COMICS_RANKS": str(count),
        "WORLD_SIZE": str(count),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "COMICS_GPUS": ",".join(map(str, gpus)),
    }
    shared.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns where no rank left a parameter out
    if not gpus:
        shared.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    with Interruption() as interruption:
        processes = [_start(run, root, index, shared) for index in range(count)]
        try:
            _watch(processes, interruption)
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
    codes = [process.returncode for process in processes]
    failed = [128 - code if code < 0 else code for code in codes if code]
    if interruption.signum is not None and failed:
        raise Interrupted(interruption.signum, kept)
    if failed:
        raise RankFailed(min(failed))  # what a rank tells itself, before what its end has done to the others


def _start(run: ResolvedRun, root: Path, index: int, shared: dict[str, str]) -> subprocess.Popen[bytes]:
    """Rank `index`; what any but the first says goes to a log of its own."""
    output = None if index == 0 else (root / run.folder / "logs" / f"rank{index}.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-c", "from comics.cli import train_rank; train_rank()"],
        env={**shared, "LOCAL_RANK": str(index)},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,  # a terminal's Ctrl-C comes by way of the parent, once
    )
    assert process.stdin is not None
    process.stdin.write(pickle.dumps((run, root.absolute(), os.getpid())))
    process.stdin.close()
    if output is not None:
        output.close()
    return process


def _watch(processes: Sequence[subprocess.Popen[bytes]], interruption: Interruption) -> None:
    """Until all have ended, or some have failed and the others had their time."""
    told = False
    deadline: float | None = None
    while any(process.poll() is None for process in processes):
        if interruption.signum is not None and not told:
            told = True
            for process in processes:
                process.send_signal(signal.SIGTERM)
        if deadline is None and any(process.poll() for process in processes):
            deadline = time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            return
        time.sleep(_POLL)


def child() -> None:
    """What a rank's process does."""
    run, root, parent = pickle.loads(sys.stdin.buffer.read())  # of the parent that started this process
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended meanwhile
    from comics.training.fit import train_rank

    try:
        train_rank(run, root)
    except Interrupted as interrupted:
        sys.exit(interrupted.exit_code)

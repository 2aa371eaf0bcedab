"""Processor time of help and of typical mistakes, each a process of its own.

python benchmarks/commands.py            # the least of five calls each, in the folder of a params.yaml
"""

from __future__ import annotations

import os
import subprocess
import sys

CALLS = (
    "--help",
    "train --help",
    "detect --help",
    "data --help",
    "nonsense",
    "evaluate absent.json absent.json",
    "train nonsense",
    "table nonsense",
)


def processor_time(words: str) -> tuple[int, float]:
    """The exit code of ``comics WORDS``, and its processor time in seconds."""
    before = os.times()
    code = subprocess.run([sys.executable, "-m", "comics", *words.split()], capture_output=True, check=False).returncode
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return code, spent


if __name__ == "__main__":
    for words in CALLS:
        rounds = [processor_time(words) for _ in range(5)]
        print(f"{min(spent for _, spent in rounds):.2f} s, code {rounds[0][0]}: comics {words}")

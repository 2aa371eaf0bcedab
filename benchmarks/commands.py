"""Processor time of help and of typical mistakes, each a process of its own.

python benchmarks/commands.py            # the least of five calls each, in the folder of a params.yaml
"""

from __future__ import annotations

from pathlib import Path

from dag import called

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


if __name__ == "__main__":
    for words in CALLS:
        rounds = [called(["-m", "comics", *words.split()], Path()) for _ in range(5)]
        print(f"{min(spent for _, spent in rounds):.2f} s, code {rounds[0][0].returncode}: comics {words}")

"""The one error a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Something the user gave is wrong: the command prints it without a traceback and exits with code 2.

    Args:
        message: what is wrong, naming the file and the field.
        remedy: what to do about it, as a full sentence.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.remedy)  # on its way from a worker process, say

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A remedy that offers the nearest valid name, or all of them when none is near."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Valid names: {', '.join(valid)}." if valid else "There are none yet."

"""Lines of the CSV results that reports are made from."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comics.errors import UserError
from comics.provenance import require_intact


@contextmanager
def lines_of(path: Path, what: str, renew: str, root: Path = Path()) -> Iterator[Iterator[dict[str, str]]]:
    """The lines of a result, by column, to be read inside of the ``with``: what goes wrong there is the file's fault.

    Args:
        path: of the file, as a message names it.
        what: it holds.
        renew: how it is made again.
        root: what `path` is relative to.

    Raises:
        UserError: the file is not what its sidecar tells, cannot be read, or a line lacks a column or has no number in it.
    """
    require_intact(root / path, renew)
    try:
        with (root / path).open(newline="", encoding="utf-8") as file:
            yield csv.DictReader(file)
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: no {what} ({error!r}).", renew) from None

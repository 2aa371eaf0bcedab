"""The corpus: what fuzzing found to lead to a message of its own, or once to a traceback, is tried again every time

`corpus.json` holds it: kind, what came of it, and the bytes (base64).
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest
from injection import message_of

from comics.data.openforensics.extract import Bounds, extract_split
from comics.images import read
from comics.weights.pickles import read_checkpoint

CORPUS = json.loads(Path(__file__).with_name("corpus.json").read_text())
KINDS = sorted({entry["kind"] for entry in CORPUS})


def take(kind: str, data: bytes, folder: Path) -> None:
    if kind.startswith("picture"):
        read(data)
    elif kind == "archive":
        path = folder / "Val.zip"
        path.write_bytes(data)
        extract_split([path], folder / "Images", "Val", Bounds())
    else:
        path = folder / "weights.bin"
        path.write_bytes(data)
        read_checkpoint(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.injects(
    "the kept inputs of long fuzzing: pictures, archives, pickles, PyTorch files, safetensors",
    "each is read, or refused in one message, within 10 s",
)
def test_the_corpus(kind: str, tmp_path: Path) -> None:
    for number, entry in enumerate(entry for entry in CORPUS if entry["kind"] == kind):
        folder = tmp_path / str(number)
        folder.mkdir()
        began = time.process_time()
        message = message_of(lambda entry=entry, folder=folder: take(kind, base64.b64decode(entry["data"]), folder))
        assert message is None or kind.startswith("picture") or str(folder) in message, entry["outcome"]
        assert time.process_time() - began < 10, entry["outcome"]

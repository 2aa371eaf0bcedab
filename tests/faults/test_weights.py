"""Weights: checkpoints from strangers"""

from __future__ import annotations

import io
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from injection import comics, message_of, refused
from safetensors.torch import save

from comics.errors import UserError
from comics.weights.pickles import read_checkpoint

ENCODE = b"c_codecs\nencode\nq\x00"
TEXT = b"X" + struct.pack("<I", 10_000_000) + b"x" * 10_000_000 + b"q\x01"


@contextmanager
def bounded(seconds: float = 20, gigabytes: float = 1) -> Iterator[None]:
    """Fails where the block takes more processor time, or more memory than that above what is taken now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = int(pages * resource.getpagesize() + gigabytes * 2**30)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    started = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.process_time() - started < seconds


def shared_lists(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value, value]
    return value


def shared_tuples_as_key(levels: int) -> bytes:
    return b"\x80\x02})" + b"2\x86" * levels + b"Ns."


def archive(folder: Path, change: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A PyTorch file of one tensor, with entries exchanged."""
    stream = io.BytesIO()
    torch.save({"a": torch.ones(10)}, stream)
    path = folder / "changed.pth"
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(path, "w", compression) as target:
        for name in source.namelist():
            target.writestr(name, change.get(name.split("/", 1)[1], source.read(name)))
    return path


PICKLES = {
    "lists_of_shared_lists": lambda: pickle.dumps(shared_lists(100), 2),
    "shared_tuples_as_key": lambda: shared_tuples_as_key(100),
    "shared_tuples_in_a_set": lambda: b"\x80\x04\x8f()" + b"2\x86" * 60 + b"\x90.",
    "memo_at_two_billion": lambda: b"\x80\x02Nr\xff\xff\xff\x7f0" + b"N" + b"q",
    "a_terabyte_announced": lambda: b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "a_terabyte_of_bytes": lambda: b"\x80\x05\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "one_array_3000_times": lambda: pickle.dumps([np.zeros(5_000_000, np.uint8)] * 3000, 2),
    "one_text_encoded_2000_times": lambda: (
        b"\x80\x02(" + ENCODE + b"0" + TEXT + b"0" + b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R" * 2000 + b"l."
    ),
    "an_integer_of_100000_digits": lambda: b"I" + b"9" * 100_000 + b"\n.",
    "marks_without_end": lambda: b"(" * 2_000_000,
}


@pytest.mark.injects(
    "pickles of some hundred bytes that share lists, tuples, texts or arrays, announce terabytes, or never end",
    "refused within 20 s of processor time and 1 GB, code 2",
)
@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_costs_no_more_than_its_size_warrants(tmp_path: Path, name: str) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(PICKLES[name]())
    with bounded(), pytest.raises(UserError, match=r"weights\.pkl"):
        read_checkpoint(path)


@pytest.mark.injects(
    "PyTorch files: a deflated archive of 200 MB, strides that make a terabyte of one number, shared lists, tuples as keys",
    "refused within 20 s of processor time and 1 GB, code 2",
)
@pytest.mark.parametrize("name", ["deflated", "strides", "strides_legacy", "lists", "key"])
def test_a_torch_file_costs_no_more_than_its_size_warrants(tmp_path: Path, name: str) -> None:
    if name.startswith("strides"):
        path = tmp_path / "changed.pth"
        wide = torch.zeros(1).expand(1_000_000, 1_000_000)
        torch.save({"a": wide}, path, _use_new_zipfile_serialization=name == "strides")
    elif name == "deflated":
        path = archive(tmp_path, {"data/0": bytes(200_000_000)}, zipfile.ZIP_DEFLATED)
    else:
        content = pickle.dumps({"a": shared_lists(100)}, 2) if name == "lists" else shared_tuples_as_key(100)
        path = archive(tmp_path, {"data.pkl": content})
    with bounded(), pytest.raises(UserError, match=r"changed\.pth: refused"):
        read_checkpoint(path)


@pytest.mark.injects("`comics weights import` of a pickle that shares lists within lists", "refused, code 2")
def test_the_command_says_so(tmp_path: Path) -> None:
    (tmp_path / "weights.pkl").write_bytes(PICKLES["lists_of_shared_lists"]())
    done = comics("weights", "import", tmp_path / "weights.pkl", cwd=tmp_path)
    refused(done, "weights.pkl: refused, it has more than a file of its size can hold")


def originals() -> dict[str, bytes]:
    tensors = {"backbone.conv.weight": torch.arange(24.0).reshape(2, 3, 4), "head.bias": torch.ones(5)}
    new, old = io.BytesIO(), io.BytesIO()
    torch.save({"model": tensors}, new)
    torch.save({"model": tensors}, old, _use_new_zipfile_serialization=False)
    arrays = {"model": {name: value.numpy() for name, value in tensors.items()}, "__author__": "x"}
    return {
        "torch": new.getvalue(),
        "legacy": old.getvalue(),
        "safetensors": save(tensors),
        "pickle": pickle.dumps(arrays, 2),
        "pickle_4": pickle.dumps(arrays, 4),
    }


ORIGINALS = originals()


@pytest.mark.injects(
    "bytes of pickles, PyTorch files and safetensors changed, cut and doubled at random places",
    "read, or refused with a message",
)
@pytest.mark.parametrize("form", ORIGINALS)
@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4000), st.sampled_from(["set", "cut", "double"]), st.binary(min_size=1, max_size=8))
    )
)
@example([(0, "cut", b"x")])
@example([(2, "set", b"\x00\x00\x00\x00\x00\x00\x00\x7f")])
def test_no_damage_escapes(
    tmp_path_factory: pytest.TempPathFactory, form: str, changes: list[tuple[int, str, bytes]]
) -> None:
    raw = ORIGINALS[form]
    for place, kind, put in changes:
        place %= len(raw) + 1
        if kind == "set":
            raw = raw[:place] + put + raw[place + len(put) :]
        elif kind == "cut":
            raw = raw[:place]
        else:
            raw = raw[:place] + raw[place : place + 64] + raw[place:]
    path = tmp_path_factory.getbasetemp() / f"damaged_{form}"
    path.write_bytes(raw)
    with bounded(seconds=10):
        message = message_of(lambda: read_checkpoint(path))
    assert message is None or str(path) in message

"""Checkpoints are read without running them: arrays come back equal, everything else is refused."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from comics.errors import UserError
from comics.weights.pickles import loads, read_checkpoint

ARRAYS = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12, dtype=np.float64).reshape(3, 4)),
    "half": np.linspace(-1, 1, 5).astype(np.float16),
    "big_endian": np.arange(4, dtype=">i4"),
    "integers": np.arange(6, dtype=np.int64).reshape(1, 2, 3),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "number": np.array(3.5),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_survive_every_protocol(protocol: int) -> None:
    """Each pickle protocol writes arrays in another way (protocol 0 as text, 5 through buffers)."""
    source = {
        "model": OrderedDict(ARRAYS),
        "__author__": "Caffe2",
        "matching_heuristics": True,
        "step": np.float64(2.5),
    }
    found = loads(pickle.dumps(source, protocol=protocol))
    assert found["__author__"] == "Caffe2"
    assert found["matching_heuristics"] is True
    assert found["step"] == 2.5
    for name, array in ARRAYS.items():
        assert np.array_equal(found["model"][name], array), name
        assert found["model"][name].dtype == array.dtype


def test_python_2_pickle() -> None:
    """Detectron's files were written by Python 2: byte strings come as latin-1 text, names as numpy 1 has them."""
    raw = np.arange(3, dtype="<f4").tobytes()
    pickled = (
        b"\x80\x02}q\x00U\x05blobsq\x01}q\x02U\x07conv1_wq\x03cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\n"
        b"q\x05K\x00\x85q\x06U\x01bq\x07\x87q\x08Rq\t(K\x01K\x03\x85q\ncnumpy\ndtype\nq\x0bU\x02f4q\x0cK\x00K\x01\x87q\rRq\x0e"
        b"(K\x03U\x01<q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89U\x0c" + raw + b"q\x11tq\x12bss."
    )
    assert np.array_equal(loads(pickled)["blobs"]["conv1_w"], [0, 1, 2])


def test_tensors_inside_a_plain_pickle() -> None:
    source = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.nn.Parameter(torch.ones(2))}
    found = loads(pickle.dumps(source))
    assert torch.equal(found["a"], source["a"])
    assert torch.equal(found["b"], torch.ones(2))


class _Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize(
    "call",
    [
        (os.system, "touch HERE"),
        (eval, "open('HERE', 'w').close()"),
        (exec, "open('HERE', 'w').close()"),
        (open, "HERE", "w"),
        (getattr, np.ndarray, "tofile"),
        (__import__, "os"),
        (pickle.loads, pickle.dumps(1)),
        (torch.load, "HERE"),
    ],
    ids=lambda call: call[0].__name__,
)
@pytest.mark.parametrize("form", ["pickle", "torch", "legacy"])
def test_evil_files_are_refused_and_not_run(tmp_path: Path, call: tuple, form: str) -> None:
    trace = tmp_path / "trace"
    args = [part.replace("HERE", str(trace)) if isinstance(part, str) else part for part in call[1:]]
    content = {"model": {"weight": np.zeros(2, np.float32)}, "evil": _Evil(call[0], *args)}
    file = tmp_path / "model.pkl"
    if form == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(UserError, match=r"model\.pkl.*not an array"):
        read_checkpoint(file)
    assert not trace.exists()


def _global(name: str) -> bytes:
    module, attribute = name.rsplit(".", 1)
    return f"c{module}\n{attribute}\n".encode()


@pytest.mark.parametrize(
    "program",
    [
        _global("numpy.ndarray") + b"(K\x02tR.",  # memory without content
        _global("numpy.dtype") + b"(U\x01OI00\nI01\ntR.",  # an object array's type
        _global("numpy.dtype") + b".",  # the type itself
        _global("numpy.core.multiarray._reconstruct") + b"N}U\x04evilK\x01s\x86b.",  # BUILD on a function
        _global("numpy.core.multiarray._reconstruct") + b"(" + _global("collections.OrderedDict") + b"(K\x00tU\x01btR.",
        _global("_codecs.encode") + b"(U\x04evilU\x03hextR.",
        _global("torch._utils._rebuild_tensor_v2") + b"(NK\x00(t(ttR.",
        b"U\x01aQ.",  # persistent id
    ],
)
def test_misuse_of_admitted_names_is_refused(program: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        loads(b"\x80\x02" + program)


def test_object_arrays_are_refused() -> None:
    with pytest.raises(pickle.UnpicklingError):
        loads(pickle.dumps(np.array([None, "text"], dtype=object)))


def test_self_reference_is_refused() -> None:
    loop: list = []
    loop.append(loop)
    with pytest.raises(pickle.UnpicklingError):
        loads(pickle.dumps(loop))


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_never_escapes(seed: int) -> None:
    """A damaged pickle raises `UnpicklingError` or yields plain content, whatever bytes were hit."""
    random = np.random.default_rng(seed)
    raw = bytearray(pickle.dumps({"model": ARRAYS}, protocol=2))
    for _ in range(3):
        raw[random.integers(len(raw))] = random.integers(256)
    try:
        loads(bytes(raw))
    except pickle.UnpicklingError:
        return
    assert any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(io.BytesIO(raw)))


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path: Path, zipped: bool) -> None:
    tensors = {"weight": torch.randn(3, 2), "bias": torch.ones(2, dtype=torch.bfloat16)}
    content = {"model": tensors, "iteration": 3, "array": np.arange(3.0), "scalar": np.float64(0.5)}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "x.pth")
    assert all(torch.equal(found["model"][key], value) for key, value in tensors.items())
    assert found["iteration"] == 3
    assert np.array_equal(found["array"], np.arange(3.0))


def test_safetensors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.bin", metadata={"digest": "abc"})
    found = read_checkpoint(tmp_path / "x.bin")
    assert torch.equal(found["model"]["a"], torch.ones(2))
    assert found["metadata"] == {"digest": "abc"}


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint", b"PK\x03\x04 truncated", struct.pack("<Q", 99) + b"{broken"]
)
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.pth"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.pth"):
        read_checkpoint(file)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent"):
        read_checkpoint(tmp_path / "absent.pkl")

"""Reading checkpoints of other projects without running what they contain.

A pickle is a program: loading one from a stranger with ``pickle.load`` runs it. `read_checkpoint` knows the four forms
in which the detection ecosystem ships weights (plain pickles of numpy arrays, PyTorch's zip and legacy files, and
safetensors) and reads them with unpicklers that can build dictionaries, numbers, strings and arrays, and nothing else.

Nor may one cost more than its size warrants: a few hundred bytes that share lists within lists, or one byte seen as a
terabyte through strides, stand for more than any memory holds. Whatever is referred to counts each time (`_Budget`).
"""

from __future__ import annotations

import codecs
import importlib
import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from comics.errors import UserError
from comics.files import require_file
from comics.provenance import require_intact

_TORCH_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # pickle of 0x1950a86a20f9469cfc6c, PyTorch before 1.6
_SIMPLE_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|c(?:8|16))\Z")
_REMEDY = "A checkpoint holds arrays only. Do not load this file with another tool unless you trust who made it."


class _Refused(pickle.UnpicklingError):
    """A pickle asks for something that is not an array."""


class _TooMuch(_Refused):
    """A file would cost more than its size warrants."""


MOST_VALUES = 300_000
"""Containers, arrays, numbers and texts that a checkpoint may hold, shared ones counted each time."""
MOST_STEPS = 1_000_000
"""Instructions of a pickle."""
_SPARE = 64 * 2**20
_KEYS = (str, bytes, int, float, type(None))


class _Budget:
    """What reading a file of `size` bytes may make."""

    def __init__(self, size: int) -> None:
        self.values, self.bytes, self.steps = MOST_VALUES, 4 * size + _SPARE, MOST_STEPS

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise _TooMuch(f"more than {MOST_STEPS:,} instructions")

    def take(self, values: int = 0, nbytes: int = 0) -> None:
        self.values -= values
        self.bytes -= nbytes
        if self.values < 0 or self.bytes < 0:
            raise _TooMuch("more than a file of its size can hold, the same thing many times over")


_budget: ContextVar[_Budget] = ContextVar("_budget")


@contextmanager
def _bounded(size: int) -> Iterator[None]:
    token = _budget.set(_Budget(size))
    try:
        yield
    finally:
        _budget.reset(token)


def _hashable(keys: Iterable[Any]) -> None:
    """Refuse keys that are not plain: the hash of tuples within tuples takes time without end."""
    for key in keys:
        if not isinstance(key, _KEYS) and not (isinstance(key, tuple) and all(isinstance(one, _KEYS) for one in key)):
            raise _Refused(f"a key of type {type(key).__name__}")


class _DType:
    """Stands in for `numpy.dtype` while unpickling: plain numbers only, no records, objects or metadata."""

    __slots__ = ("code",)

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or not _SIMPLE_DTYPE.match(code):
            raise _Refused(f"an array of {code!r}")
        self.code = code

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) >= 8 else None
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise _Refused("an array of records")
        self.code = order + self.code.lstrip("<>|=")

    def resolve(self) -> np.dtype:
        return np.dtype(self.code)


class _Array:
    """Stands in for `numpy.ndarray`: numpy's own unpickling code never runs on the file's bytes."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _from_buffer(raw, dtype, shape, "F" if fortran else "C")


class _Global:
    """What the unpickler gets for an admitted name: callable, and without attributes that a pickle could set."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused("a change to a function")


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if isinstance(raw, str):  # Python 2 wrote bytes as str; the unpickler decodes them as latin-1
        raw = raw.encode("latin-1")
    if not isinstance(raw, (bytes, bytearray)) or not isinstance(dtype, _DType) or order not in ("C", "F", "A", "K"):
        raise _Refused("an array of objects")
    layout: Literal["C", "F"] = "F" if order == "F" else "C"
    _budget.get().take(1, len(raw))
    dimensions = tuple(int(length) for length in shape)
    return np.frombuffer(bytes(raw), dtype.resolve()).reshape(dimensions, order=layout).copy(order=layout)


def _reconstruct(subtype: Any, shape: Any, code: Any) -> _Array:
    if not isinstance(subtype, _Global) or subtype is not _ADMITTED["numpy.ndarray"]:
        raise _Refused("a subclass of array")
    return _Array()


def _make_array(*args: Any) -> Any:
    raise _Refused("an array made outside of numpy's format")


def _scalar(dtype: Any, raw: Any) -> Any:
    return _from_buffer(raw, dtype, ()).item()


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "utf8"):
        raise _Refused("an unusual text encoding")
    _budget.get().take(1, len(text))
    return codecs.encode(text, encoding)


def _empty_bytes(*args: Any) -> bytes:
    if args:
        raise _Refused("bytes made from an object")
    return b""


def _storage_from_bytes(raw: Any) -> Any:
    if not isinstance(raw, bytes):
        raise _Refused("a storage that is not bytes")
    _budget.get().take(1, len(raw))
    return _torch_load(io.BytesIO(raw), len(raw))


def _ordered(*args: Any) -> OrderedDict[Any, Any]:
    _hashable(pair[0] for pairs in args for pair in pairs)
    return OrderedDict(*args)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any = False, *hooks: Any) -> Tensor:
    if not isinstance(storage, torch.storage.TypedStorage):
        raise _Refused("a tensor without storage")
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


def _parameter(data: Any, requires_grad: Any = False, *hooks: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise _Refused("a parameter without tensor")
    return data


_ADMITTED: dict[str, _Global] = {
    "collections.OrderedDict": _Global(_ordered),
    "numpy.ndarray": _Global(_make_array),
    "numpy.dtype": _Global(_DType),
    "_codecs.encode": _Global(_encode),
    "builtins.bytes": _Global(_empty_bytes),  # how old protocols write b""
    "__builtin__.bytes": _Global(_empty_bytes),
    "torch.storage._load_from_bytes": _Global(_storage_from_bytes),
    "torch._utils._rebuild_tensor_v2": _Global(_tensor),
    "torch._utils._rebuild_parameter": _Global(_parameter),
}
for _core in ("core", "_core"):  # numpy 1 and numpy 2 name the same functions differently
    _ADMITTED[f"numpy.{_core}.multiarray._reconstruct"] = _Global(_reconstruct)
    _ADMITTED[f"numpy.{_core}.multiarray.scalar"] = _Global(_scalar)
    _ADMITTED[f"numpy.{_core}.numeric._frombuffer"] = _Global(_from_buffer)


def _checked(step: Callable[[Any], None], keys: Callable[[list[Any]], Iterable[Any]]) -> Callable[[Any], None]:
    """An instruction that looks at the keys on the stack before it hashes them."""

    def check(unpickler: Any) -> None:
        _hashable(keys(unpickler.stack))
        step(unpickler)

    return check


def _load_bytearray(unpickler: Any) -> None:
    length = int.from_bytes(unpickler.read(8), "little")
    _budget.get().take(1, length)
    raw = bytearray(unpickler.read(length))
    if len(raw) != length:
        raise EOFError("the file ends within an array")
    unpickler.append(raw)


_Python: Any = pickle._Unpickler
"""Python's own unpickler in Python, where each instruction can be counted. The one in C makes a list as long as the
largest index in the file, and hashes whatever it is given."""


class _Instructions(dict[int, Callable[[Any], None]]):
    """What each instruction does; taking one counts."""

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        _budget.get().step()
        return super().__getitem__(code)


class _BoundedUnpickler(_Python):
    dispatch = _Instructions(_Python.dispatch)
    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray
    dispatch[pickle.SETITEM[0]] = _checked(_Python.load_setitem, lambda stack: stack[-2:-1])
    dispatch[pickle.SETITEMS[0]] = _checked(_Python.load_setitems, lambda stack: stack[::2])
    dispatch[pickle.DICT[0]] = _checked(_Python.load_dict, lambda stack: stack[::2])
    dispatch[pickle.ADDITEMS[0]] = _checked(_Python.load_additems, lambda stack: stack)
    dispatch[pickle.FROZENSET[0]] = _checked(_Python.load_frozenset, lambda stack: stack)


class ArrayUnpickler(_BoundedUnpickler):
    """An unpickler that admits arrays, tensors, containers, numbers and text; any other name is refused.

    Neither numpy's nor any other library's code is called with what the file says, except to copy checked bytes.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin-1")

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[f"{module}.{name}"]
        except KeyError:
            raise _Refused(f"'{module}.{name}'") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("an object kept outside of the file")


class _Nothing:
    """Stands in for everything that a pickle makes, where only the pickle itself is looked at."""

    __slots__ = ()

    def __call__(self, *args: Any) -> _Nothing:
        return self

    __setstate__ = __setitem__ = append = extend = add = __call__


class _Survey(_BoundedUnpickler):
    """Goes through a pickle within bounds and makes nothing: before PyTorch's own unpickler, which has none."""

    def find_class(self, module: str, name: str) -> Any:
        return _Nothing()

    def persistent_load(self, pid: Any) -> Any:
        return _Nothing()


def _plain(value: Any) -> Any:
    """`value` with the stand-ins of `ArrayUnpickler` replaced by arrays, counted as often as it is referred to."""
    budget = _budget.get()
    if isinstance(value, _Array):
        value = value.value
    budget.take(1, value.nbytes if isinstance(value, (np.ndarray, Tensor)) else 0)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in dict.items(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (_Global, _DType)):
        raise _Refused("a bare function or type")
    return value


def loads(raw: bytes) -> Any:
    """Unpickle `raw` with `ArrayUnpickler`; tuples come back as lists.

    Raises:
        pickle.UnpicklingError: when it asks for anything but arrays, or for more than its size warrants.
    """
    with _bounded(len(raw)):
        try:
            return _plain(ArrayUnpickler(io.BytesIO(raw)).load())
        except _Refused:
            raise
        except RecursionError:
            raise _Refused("an object that contains itself") from None
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise pickle.UnpicklingError(f"damaged: {error}") from error


def _numpy_globals() -> list[Any]:
    """What PyTorch's own restricted unpickler must be told to admit arrays and numpy numbers beside tensors."""
    kinds = [np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.float16, np.float32, np.float64]
    numpy_core: Any = importlib.import_module("numpy._core.multiarray")
    found: list[Any] = [numpy_core._reconstruct, numpy_core.scalar, np.ndarray, np.dtype, codecs.encode]
    found += [(numpy_core._reconstruct, "numpy.core.multiarray._reconstruct")]
    found += [(numpy_core.scalar, "numpy.core.multiarray.scalar")]
    return found + [type(np.dtype(kind)) for kind in kinds]


def _survey(stream: Any, size: int) -> None:
    """Look at a PyTorch file before PyTorch does.

    Raises:
        _Refused: its pickles take too many instructions, or its archive holds more than the file has bytes.
    """
    stream.seek(0)
    if stream.read(2) == b"PK":
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > size:
                raise _TooMuch("an archive that unpacks to more than its size")
            for entry in entries:
                if entry.filename.endswith("/data.pkl"):
                    _Survey(io.BytesIO(archive.read(entry))).load()
        return
    stream.seek(0)
    for _ in range(5):  # magic number, version, facts of the system, the content, the names of what follows it
        _Survey(stream).load()


def _torch_load(source: Path | io.BytesIO, size: int) -> Any:
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.getvalue()) as stream:
            _survey(stream, size)
        with torch.serialization.safe_globals(_numpy_globals()):
            content = torch.load(source, map_location="cpu", weights_only=True)
        _count(content)
        return content
    except _Refused:
        raise
    except RecursionError:
        raise _Refused("an object that contains itself") from None
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        raise _Refused(f"'{asked[1]}'" if asked else "an object that is neither tensor nor array") from None
    except Exception as error:  # a damaged file can raise nearly anything
        raise pickle.UnpicklingError(f"damaged: {error}") from error


def _count(value: Any) -> None:
    """Count `value` against the budget, each time that something refers to it."""
    _budget.get().take(1, value.nbytes if isinstance(value, (np.ndarray, Tensor)) else 0)
    if isinstance(value, dict):
        for key, item in dict.items(value):
            _count(key)
            _count(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            _count(item)


def _safetensors_load(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            return {"model": tensors, "metadata": dict(file.metadata() or {})}
    except SafetensorError as error:
        raise pickle.UnpicklingError(f"damaged: {error}") from error


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The content of a checkpoint file, whatever its form (told from its first bytes, not from its name).

    Args:
        path: a pickle of arrays (detectron2's and Detectron's ``.pkl``), a PyTorch file (``.pth`` or ``.pt``, zip or
            legacy), or a safetensors file, which comes back as ``{"model": tensors, "metadata": strings}``.

    Raises:
        UserError: when the file is absent, damaged, no longer what its sidecar was written for, contains anything but
            arrays, or makes more than its size warrants.
    """
    file = Path(path)
    try:
        require_file(file)
        with file.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).", "Give a checkpoint file.") from None
    if not head:
        raise UserError(f"{path}: the file is empty.", "Fetch it again.")
    require_intact(file, "Make or fetch it again; if it was changed on purpose, remove its sidecar.")
    try:
        size = file.stat().st_size
        if head.startswith(b"PK") and zipfile.is_zipfile(file):
            with _bounded(size):
                return _torch_load(file, size)
        if len(head) > 8 and head[8:9] == b"{":
            return _safetensors_load(file)
        if _TORCH_LEGACY_MAGIC in head:
            with _bounded(size):
                return _torch_load(file, size)
        return loads(file.read_bytes())
    except _TooMuch as error:
        raise UserError(
            f"{path}: refused, it has {error}.", "No checkpoint is like that: fetch another file."
        ) from None
    except _Refused as error:
        raise UserError(f"{path}: refused, it contains {error}, which is not an array.", _REMEDY) from None
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:  # is_zipfile, too, raises the latter
        raise UserError(f"{path}: not a readable checkpoint ({error}).", "Fetch the file again.") from None

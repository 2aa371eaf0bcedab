"""What the machine offers."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest


def test_the_peak_memory_is_this_processs_own():
    code = "from comics.machine import peak_resident; a = bytearray(60 * 10**6); a[::4096] = b'x' * len(a[::4096]); print(peak_resident())"
    ballast = bytearray(400 * 10**6)
    ballast[::4096] = b"x" * len(ballast[::4096])
    own = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 60 * 10**6 < own < 300 * 10**6


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators give memory back by themselves")
def test_freed_memory_is_given_back():
    """Small pieces that were freed below one that is still held: the allocator keeps them."""
    code = """
from comics.machine import release_memory
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
pieces = [libc.malloc(30_000) for _ in range(3000)]
for piece in pieces:
    ctypes.memset(piece, 1, 30_000)
for piece in pieces[:-1]:
    libc.free(piece)
kept = resident()
release_memory()
print(kept - resident())
"""
    given = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert given > 50 * 10**6

"""What the machine offers."""

from __future__ import annotations

import subprocess
import sys


def test_the_peak_memory_is_this_processs_own():
    code = "from comics.machine import peak_resident; a = bytearray(60 * 10**6); a[::4096] = b'x' * len(a[::4096]); print(peak_resident())"
    ballast = bytearray(400 * 10**6)
    ballast[::4096] = b"x" * len(ballast[::4096])
    own = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 60 * 10**6 < own < 300 * 10**6

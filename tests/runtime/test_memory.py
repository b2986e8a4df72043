"""Memory that the C library keeps: it goes back to the system, during a run too."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading

import pytest
from facerecon_rt import memory

FRAGMENTS = """
import ctypes
from facerecon_rt.memory import give_back

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [library.malloc(100_000) for _ in range(600)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[:-1]:
    library.free(block)  # the last block keeps the heap from shrinking
before = resident_mb()
assert give_back()
print(before - resident_mb())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_memory_between_blocks_in_use_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", FRAGMENTS], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 40


def test_a_run_gives_memory_back_again_and_again_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    thrice, threads = threading.Semaphore(0), threading.active_count()

    def given() -> bool:
        thrice.release()
        return True

    monkeypatch.setattr(memory, "EVERY_S", 0.001)
    monkeypatch.setattr(memory, "give_back", given)
    with memory.given_back_regularly():
        for _ in range(3):
            assert thrice.acquire(timeout=20)
    assert threading.active_count() == threads
    with memory.given_back_regularly():
        monkeypatch.setattr(memory, "give_back", lambda: False)  # a library that cannot is asked once
    assert threading.active_count() == threads

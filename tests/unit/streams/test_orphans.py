"""Forked workers of a process that is killed end, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil

PARENT = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from streams.orphans import end_with

def work(_):
    os.write(1, b"%d\\n" % os.getpid())  # in one piece, also where print is unbuffered
    time.sleep(600)

fork = multiprocessing.get_context("fork")
with ProcessPoolExecutor(2, fork, initializer=end_with, initargs=(os.getpid(),)) as pool:
    list(pool.map(work, range(2)))
"""


def there(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_workers_end_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(map(there, workers))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    give_up = time.monotonic() + 20
    while any(map(there, workers)) and time.monotonic() < give_up:
        time.sleep(0.1)
    left = [pid for pid in workers if there(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left

"""A process that ends with the one that started it, also when that is killed."""

from __future__ import annotations

import os
import threading
import time

LOOK_SECONDS = 0.5


def end_with(parent: int) -> None:
    """From now on this process ends soon after `parent`, its parent, does.

    A forked worker inherits both ends of the pipe that it answers through, so a parent that was killed never
    breaks that pipe: the worker would wait for ever.
    """
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)

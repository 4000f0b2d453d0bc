"""Worker processes that do not outlive whoever started them."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """To be called first in a worker: a parent that is killed cannot end its workers, so they watch for it.

    What outlived it would go on writing where the same command, given again, writes.
    """

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

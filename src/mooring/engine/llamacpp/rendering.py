"""Threads to render and tokenise prompts on."""

import threading
from concurrent.futures import ThreadPoolExecutor

_THREADS = 2
_STACK_BYTES = 512 << 20
"""Address space, not memory: pages are taken when they are touched. llama.cpp's regular expressions
recurse once a character, and 30,000 equal letters overflow an ordinary stack and end the process."""


def rendering_threads() -> ThreadPoolExecutor:
    """A pool whose threads have very large stacks."""
    pool = ThreadPoolExecutor(_THREADS, "mooring-render")
    previous = threading.stack_size(_STACK_BYTES)
    try:
        all_started = threading.Barrier(_THREADS + 1)
        for _ in range(_THREADS):  # the stack's size is decided when a thread starts
            pool.submit(all_started.wait)
        all_started.wait()
    finally:
        threading.stack_size(previous)
    return pool

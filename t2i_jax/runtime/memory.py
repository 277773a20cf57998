"""Memory that the allocator of the C library keeps although nothing uses it."""

import contextlib
import ctypes
import importlib.util

# of mallopt, in malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def give_back():
    """Return free memory to the system where the allocator can (glibc).

    Compiling a large program leaves gigabytes of it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_for_next_step():
    """Let the allocator keep what a step frees for the next one (glibc), for training on CPU.

    On CPU all arrays of a step are allocated and freed with it. Large ones come from the system
    each time, which clears them page by page: a fifth of a step. Call it before JAX starts its
    threads, each of which would have a heap of its own. Where there is an accelerator nothing is
    changed: arrays of a step are not in this memory, and threads that decode want heaps.
    """
    if importlib.util.find_spec('jax_plugins') or importlib.util.find_spec('libtpu'):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
            mallopt(name, value)

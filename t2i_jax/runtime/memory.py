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


def one_heap():
    """Let all threads allocate from one heap, for `keep_for_next_step`.

    Call it before JAX starts its threads. Where there is an accelerator nothing is changed: arrays
    of a step are not in this memory, and threads that decode want heaps of their own.
    """
    if not (importlib.util.find_spec('jax_plugins') or importlib.util.find_spec('libtpu')):
        allocate(M_ARENA_MAX, 1)


def keep_for_next_step():
    """Let the allocator keep what a step frees for the next one, for training on CPU.

    On CPU all arrays of a step are allocated and freed with it. Large ones come from the system
    each time, which clears them page by page: a fifth of a step. Call it when all is compiled,
    whose memory should go back to the system. It does nothing for threads with heaps of their own.
    """
    allocate(M_MMAP_MAX, 0)
    allocate(M_TRIM_THRESHOLD, -1)


def allocate(setting, value):
    """Set how the allocator works, where it can be set (glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(setting, value)

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


def accelerated() -> bool:
    """Whether JAX can use an accelerator here: arrays of a step are then not in this memory."""
    return any(importlib.util.find_spec(name) for name in ('jax_plugins', 'libtpu'))


def one_heap():
    """Let all threads allocate from one heap, as `reuse` needs it; not with an accelerator.

    Call it before JAX starts its threads.
    """
    if not accelerated():
        allocate(M_ARENA_MAX, 1)


@contextlib.contextmanager
def reuse():
    """Within this, and once the function that it yields is called, what is freed is used again.

    On CPU all arrays of a step are allocated and freed with it. Large ones come from the system
    each time, which clears them page by page: a fifth of a step. Call the function when all is
    compiled, whose memory goes back to the system. It helps threads of `one_heap` alone.
    """

    def start():
        give_back()
        if not accelerated():
            allocate(M_MMAP_MAX, 0)
            allocate(M_TRIM_THRESHOLD, -1)

    try:
        yield start
    finally:
        # what compiles next frees gigabytes; these are glibc's own values
        allocate(M_MMAP_MAX, 65_536)
        allocate(M_TRIM_THRESHOLD, 128 * 1024)


def allocate(setting, value):
    """Set how the allocator works, where it can be set (glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(setting, value)

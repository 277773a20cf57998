"""Memory that the allocator of the C library keeps although nothing uses it."""

import contextlib
import ctypes


def give_back():
    """Return free memory to the system where the allocator can (glibc).

    Compiling a large program leaves gigabytes of it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

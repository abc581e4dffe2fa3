"""Freed memory, given back to the system."""

import ctypes


def trim_heap() -> bool:
    """Give back what the C library keeps of freed memory, pieces between others as well; whether there was any.

    Requests of many sizes leave such pieces in the heaps of all threads, and glibc alone gives back only the end of a
    heap: after ten thousand damaged requests it held 110 MB, all of them free. Does nothing where the C library is
    another one.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    return bool(trim(ctypes.c_size_t(0)))

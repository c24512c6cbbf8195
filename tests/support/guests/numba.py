"""Stands in for Numba in the lab's guest, which has no compiler: what is marked for compiling runs as the Python it is."""


def njit(*args, **options):
    return args[0] if args and callable(args[0]) else lambda function: function

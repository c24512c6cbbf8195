"""How the hot loops are compiled: by Numba, kept on disk, and without counting references.

Where a function takes a tuple of arrays, Numba counts a reference for each array it touches, atomically, at every call. A page fault
goes through half a dozen such functions: counting was nine tenths of its 1.4 µs, and half of the time to compile it. A function
under :data:`native` or :data:`inlined` borrows what its caller holds. It can therefore make no array, slice assignment or slice operation
of its own: Numba refuses it ("NRT required but not enabled"). One that must is ``njit(cache=True)`` and is called from Python alone,
for what native code calls is compiled like itself.
"""

from __future__ import annotations

from typing import Any

from numba import njit

_njit: Any = njit  # the option is in none of its signatures
native = _njit(cache=True, _nrt=False)
#: The same, copied into its callers: for a few lines in a hot loop.
inlined = _njit(cache=True, _nrt=False, inline="always")

"""Asking for memory before it is used.

    events     ... i ........... i + AHEAD ...       a loop over a trace's columns is at i, and asks for what it reads soon

The processor by itself reads ahead to the end of a 4 KiB page and begins anew in the next, which costs a fifth of the time of a
loop that does little with each event.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

#: Events: far enough for memory to answer, near enough for the first cache to hold what came.
AHEAD = np.uint64(256)
_intrinsic: Any = intrinsic


@_intrinsic
def prefetch(_, array, index):  # type: ignore[no-untyped-def]
    """Ask for the cache line of ``array[index]`` (*index* uint64); outside of the array it does nothing."""

    def code(context, build, signature, given):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, build, given[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        where = build.bitcast(build.gep(data, [given[1]]), byte)
        ask = build.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        build.call(ask, [where, word(0), word(3), word(1)])  # to read, to keep, data
        return context.get_dummy_value()

    return types.void(array, types.uint64), code

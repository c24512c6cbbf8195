"""Memory of our own to look at."""

import mmap

import numpy as np

from secondsight.geometry import PMD_SIZE as BLOCK


def area(pages):
    """Anonymous memory of our own with the given pages of its first whole block touched: (mapping, address of the block)."""
    memory = mmap.mmap(-1, 3 * BLOCK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    block = (start + BLOCK - 1) & ~(BLOCK - 1)
    for page in pages:
        memory[block - start + page * 4096] = 1
    return memory, block

"""What lays out one block of a process, in the lab's guest: the kinds by group, and pages drawn, read and pinned."""

import ctypes
import os

import laid_out

from secondsight.lab.agent import libc

NOHUGEPAGE, PAGEOUT, COLLAPSE, REMOVE = 15, 21, 25, 9
KINDS = {"anonymous": {}, "cached": {}}


def kind(group, *, advised=True):
    """Decorator: a function of (random, number) that lays out one block of *group*; *advised*: MADV_HUGEPAGE afterwards."""

    def take(lay_out_one):
        KINDS[group][lay_out_one.__name__] = (lay_out_one, advised)
        return lay_out_one

    return take


def some(r):
    """Pages of a block: all, or a run or a sample of them."""
    drawn = r.random()
    if drawn < 0.5:
        return range(512)
    if drawn < 0.75:
        first = r.randrange(512)
        return range(first, min(512, first + r.randrange(1, 400)))
    return sorted(r.sample(range(512), r.randrange(1, 500)))


def read(at, pages=range(512)):
    for page in pages:
        ctypes.c_char.from_address(at + page * 4096).value  # noqa: B018


def pin(at, page):
    """vmsplice: one reference more."""
    pipe = os.pipe()
    laid_out.KEPT.extend(pipe)
    vector = (ctypes.c_uint64 * 2)(at + page * 4096, 4096)
    libc.check(libc.lib.syscall(libc.SYS_VMSPLICE, pipe[1], vector, 1, 0), "vmsplice")

"""Pages as I/O uses them, on memory of a process's own: what is moved, what is stepped over, and what is held until it is let go."""

import ctypes
import os

import pytest

from secondsight.lab.agent import libc
from secondsight.lab.agent.pins import Pins, copied
from secondsight.lab.agent.routines import Routines
from support.in_child import in_child


def _area(pages=8):
    libc.mmap_fixed(libc.AREA, pages * libc.PAGE)
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    for page in range(pages):
        ctypes.c_uint32.from_address(libc.AREA + page * libc.PAGE).value = page + 1
    return Routines()


def _words(pages=8):
    return [ctypes.c_uint32.from_address(libc.AREA + page * libc.PAGE).value for page in range(pages)]


def _copied_io_stores_a_stamp_in_the_pages_named():
    routines = _area()
    stored = copied(routines, [5, 2], True, 1 << 31)
    loaded = copied(routines, [0, 1], False, 0)
    return stored is loaded is None and _words() == [1, 2, 1 << 31 | 2, 4, 5, 1 << 31 | 5, 7, 8]


def _what_is_denied_is_stepped_over_and_the_others_are_done():
    routines = _area()
    libc.lib.mprotect(ctypes.c_void_p(libc.AREA + 3 * libc.PAGE), ctypes.c_size_t(libc.PAGE), 0)
    stored = copied(routines, [2, 3, 4], True, 1 << 31)
    libc.lib.mprotect(ctypes.c_void_p(libc.AREA + 3 * libc.PAGE), ctypes.c_size_t(libc.PAGE), 3)
    return stored == "EFAULT" and _words()[2:5] == [1 << 31 | 2, 4, 1 << 31 | 4]


def _descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def _pins_are_held_by_name_until_they_are_let_go():
    routines = _area()
    pins, before = Pins(routines), _descriptors()
    first = pins.pin("a", [1, 2, 3], False)
    again = pins.pin("a", [5], False)
    pins.pin("b", [6], False)
    held = _descriptors() - before
    pins.unpin("a")
    one = _descriptors() - before
    pins.unpin("never held")
    pins.release()
    return first is again is None and (held, one, _descriptors() - before) == (6, 2, 0)


def _a_child_drops_the_descriptors_that_came_along():
    routines = _area()
    pins, before = Pins(routines), _descriptors()
    pins.pin("a", [1], False)
    pins.close_inherited()
    pins.release()
    return _descriptors() == before


BODIES = [
    _copied_io_stores_a_stamp_in_the_pages_named, _what_is_denied_is_stepped_over_and_the_others_are_done,
    _pins_are_held_by_name_until_they_are_let_go, _a_child_drops_the_descriptors_that_came_along,
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__.strip("_"))
def test_in_a_process_of_its_own(body):
    assert in_child(body) == 0

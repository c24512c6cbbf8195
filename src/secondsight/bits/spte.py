"""Secondary page-table entries as KVM keeps them: NPT and shadow paging, EPT, and access tracking.

    NPT, shadow   63 62 .. 52 51 ...... 12 11 10  9  8  7  6  5  4 3 2 1 0
                  NX          frame        MP MW HW     L  D  A      U W P
    EPT           58 57 56 54 53..52 51 ... 12 11   9  8  7  6 5..3  2 1 0
                  MW HW sX sR type   frame     MP   D  A  L  I type  X W R

    MP MMU-present, MW/HW MMU-/host-writable, L large leaf, type (EPT 52-53): 0 A/D bits on, 1 off, 2 write-protection only.
    sR/sX: the R and X bits an access-tracked SPTE had; W is not saved (it comes back with a write fault).

Source: arch/x86/kvm/mmu/spte.h and spte.c (5.10, 6.1, 6.12, 7.3), arch/x86/kvm/mmu.c for 2.6.38, where EPT has no accessed bit. Up to
5.12 there is no MMU-present bit, and HW and MW are bits 10 and 11 in every format. Since 7.2 EPT has an X bit for each of the guest's
two privileges (MBEC; bit 2 the kernel's, bit 10 the user's), tracking takes both away, and the high bits have moved: type 60-61, MW 55,
HW 53, saved R, X and user's X 52, 54, 62. All functions are pure and take uint64 arrays of any shape; predicates return bool arrays of
the same shape, the rest uint64.

Without hardware A/D bits, 6.1 and 6.12 have ``shadow_accessed_mask == 0`` and "accessed" means "present and not access-tracked"; since
6.13 (3835819fb1b3, 7971801b5618) bit 8 is kept in software, cleared when the SPTE is tracked and set when it is restored.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from secondsight.bits.pte import PFN_MASK, U64, Bools
from secondsight.geometry import PAGE_SHIFT

_Z = np.uint64(0)


def _bit(n: int) -> np.uint64:
    return np.uint64(1 << n)


class SpteLayout(NamedTuple):
    """Where each meaning sits in an SPTE; every field is a uint64 mask, 0 where the format has none.

    *tracked* is ``shadow_acc_track_mask``: the bits an access-tracked SPTE has lost (0: the format is never
    tracked). *ad_disabled* is the type value that marks an SPTE as access-tracked rather than A/D: the lower of the type's two bits.
    *saved_shift* is no mask: so far up go the tracked bits but W (``SHADOW_ACC_TRACK_SAVED_BITS_SHIFT``).
    """

    present: np.uint64
    readable: np.uint64
    writable: np.uint64
    executable: np.uint64
    nx: np.uint64
    user: np.uint64
    large: np.uint64
    accessed: np.uint64
    dirty: np.uint64
    host_writable: np.uint64
    mmu_writable: np.uint64
    ad_disabled: np.uint64
    tracked: np.uint64
    saved_shift: np.uint64 = np.uint64(54)

    @property
    def ad_type(self) -> np.uint64:
        """The two bits of the type (``SPTE_TDP_AD_MASK``)."""
        return self.ad_disabled | self.ad_disabled << np.uint64(1)


#: The value of SPTE_TDP_AD_MASK without A/D bits, up to 7.1.
AD_DISABLED = _bit(52)
RWX = _bit(0) | _bit(1) | _bit(2)

NPT = SpteLayout(
    present=_bit(11),
    readable=_bit(0),
    writable=_bit(1),
    executable=_Z,
    nx=_bit(63),
    user=_bit(2),
    large=_bit(7),
    accessed=_bit(5),
    dirty=_bit(6),
    host_writable=_bit(9),
    mmu_writable=_bit(10),
    ad_disabled=_Z,
    tracked=_Z,
)
EPT = SpteLayout(
    present=_bit(11),
    readable=_bit(0),
    writable=_bit(1),
    executable=_bit(2),
    nx=_Z,
    user=_Z,
    large=_bit(7),
    accessed=_bit(8),
    dirty=_bit(9),
    host_writable=_bit(57),
    mmu_writable=_bit(58),
    ad_disabled=_Z,
    tracked=RWX,
)
#: eptad=0 up to 6.12: no accessed bit anywhere; young means present and not access-tracked.
EPT_NOAD = EPT._replace(accessed=_Z, dirty=_Z, ad_disabled=AD_DISABLED)
#: eptad=0 since 6.13: bit 8 kept in software.
EPT_NOAD_SOFT = EPT._replace(dirty=_Z, ad_disabled=AD_DISABLED)
#: Since 7.2, with an X bit for each privilege; without accessed bits in hardware they are kept in software.
EPT_MBEC = EPT._replace(
    executable=_bit(2) | _bit(10),
    host_writable=_bit(53),
    mmu_writable=_bit(55),
    tracked=RWX | _bit(10),
    saved_shift=np.uint64(52),
)
EPT_NOAD_MBEC = EPT_MBEC._replace(dirty=_Z, ad_disabled=_bit(60))
#: Up to 5.12 nothing says that KVM maps something but the entry itself (is_shadow_present_pte: neither zero nor MMIO); of those that may be
#: access-tracked it is the type that all have.
NPT_UNMARKED = NPT._replace(present=_bit(0), host_writable=_bit(10), mmu_writable=_bit(11))
EPT_UNMARKED = EPT._replace(present=_bit(0), host_writable=_bit(10), mmu_writable=_bit(11))
EPT_NOAD_UNMARKED = EPT_UNMARKED._replace(present=AD_DISABLED, accessed=_Z, dirty=_Z, ad_disabled=AD_DISABLED)
#: 2.6.38: presence is the hardware's own bit; EPT has neither A/D bits nor access tracking.
NPT_2010 = NPT._replace(present=_bit(0), mmu_writable=_Z)
EPT_2010 = EPT._replace(
    present=_bit(0), accessed=_Z, dirty=_Z, host_writable=_bit(9), mmu_writable=_Z, tracked=_Z
)

Era = Literal["2010", "unmarked", "tracked", "soft", "mbec"]


def layout(mmu: str, era: Era) -> SpteLayout:
    """The layout KVM uses on *mmu* (``npt``, ``shadow``, ``ept``, ``ept-noad``) in an *era*: ``2010`` (2.6.38),
    ``unmarked`` (4.11 to 5.12), ``tracked`` (5.13 to 6.12), ``soft`` (6.13 to 7.1), ``mbec`` (7.2 on)."""
    if mmu in ("npt", "shadow"):
        return {"2010": NPT_2010, "unmarked": NPT_UNMARKED}.get(era, NPT)
    if era == "2010":
        return EPT_2010
    if era == "unmarked":
        return EPT_UNMARKED if mmu == "ept" else EPT_NOAD_UNMARKED
    if era == "mbec":
        return EPT_MBEC if mmu == "ept" else EPT_NOAD_MBEC
    if mmu == "ept":
        return EPT
    return EPT_NOAD if era == "tracked" else EPT_NOAD_SOFT


def is_present(spte: U64, at: SpteLayout) -> Bools:
    """is_shadow_present_pte: KVM maps something here, access-tracked or not."""
    return (spte & at.present) != 0


def is_access_track(spte: U64, at: SpteLayout) -> Bools:
    """is_access_track_spte: A/D off for this SPTE and its RWX taken away."""
    if not at.ad_disabled:
        return np.zeros(np.shape(spte), dtype=np.bool_)
    return is_present(spte, at) & ((spte & at.ad_type) == at.ad_disabled) & ((spte & at.tracked) == 0)


def is_accessed(spte: U64, at: SpteLayout) -> Bools:
    """is_accessed_spte: the accessed bit where there is one, else present and not access-tracked.

    (2.6.38's ``kvm_test_age_rmapp`` answers 0 without an accessed bit: that is a rule, not a layout.)
    """
    if at.accessed:
        return is_present(spte, at) & ((spte & at.accessed) != 0)
    return is_present(spte, at) & ~is_access_track(spte, at)


def is_writable(spte: U64, at: SpteLayout) -> Bools:
    """is_writable_pte: the hardware lets a guest store through this SPTE."""
    return is_present(spte, at) & ((spte & at.writable) != 0)


def is_large(spte: U64, at: SpteLayout) -> Bools:
    """is_large_pte: a leaf above level 1."""
    return is_present(spte, at) & ((spte & at.large) != 0)


def spte_pfn(spte: U64) -> U64:
    """spte_to_pfn: the page frame number."""
    return (spte & PFN_MASK) >> np.uint64(PAGE_SHIFT)


def mark_for_access_track(spte: U64, at: SpteLayout) -> U64:
    """mark_spte_for_access_track: what ageing leaves behind of present SPTEs."""
    if not at.ad_disabled:
        return spte & ~at.accessed
    saved = (spte & at.tracked & ~at.writable) << at.saved_shift
    tracked = ((spte | saved) & ~at.tracked) & ~at.accessed
    return np.where(is_access_track(spte, at), spte & ~at.accessed, tracked)


def restore_acc_track(spte: U64, at: SpteLayout) -> U64:
    """restore_acc_track_spte: R and X back in place (W only with a write fault); the software accessed bit set where kept."""
    saved = at.tracked & ~at.writable
    bits = (spte >> at.saved_shift) & saved
    return ((spte & ~at.tracked) & ~(saved << at.saved_shift)) | bits | at.accessed

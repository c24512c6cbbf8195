"""mm/khugepaged.c, a part of it a file; who wants one part imports that alone.

::

    walk       collapse_scan_mm_slot, madvise_collapse: over processes and their blocks
      scan       collapse_scan_pmd: one block, passes or is left
        orders     mthp_collapse: which parts of the block are tried, one after another
          attempt    collapse_huge_page: one candidate (mm, start, order)
            swapin     __collapse_huge_page_swapin
            zap        what the notifiers' invalidation leaves behind
            isolate    __collapse_huge_page_isolate
    result     enum scan_result         limits     collapse_max_ptes_none and its like      checks     what kernels differ in
    ahead      the attempts that a pass over a view's block would take
    verdict    scan, swapin, zap and isolate of a view, three-valued: nothing is changed
"""

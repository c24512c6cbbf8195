"""SecondSight: which memory is really in use, through every MMU that maps it.

A page can be reached without the CPU's page tables knowing. Three channels say whether it was used:
the accessed bit of the primary page table (PRIMARY), the page's own referenced mark (REFERENCED) and
every secondary MMU's ``test_young`` (SECONDARY). The packages within this one are described in
``docs/architecture.md``.
"""

__version__ = "0.1.0"

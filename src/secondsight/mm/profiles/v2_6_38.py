"""Linux 2.6.38, to which the patch belongs: read in its text, booted by no one here. ``Rules``'s defaults are its values."""

from secondsight.mm.profiles.series import Series, Variant

SERIES = Series(
    version=(2, 6, 38),
    about="the patch as posted and merged, asking test_young about the block's base address",
    changes={},
    variants=(
        Variant(
            name="no-heuristic",
            about="the alternative the patch's author names: collapse without asking for a reference",
            changes={"referenced_needed": False, "scan_tests_base_address": False},
            earlier=True,
        ),
        Variant(
            name="thp-base",
            about="the THP series before this patch: only the primary accessed bit is asked",
            changes={
                "asks_page_referenced": False,
                "asks_secondary": False,
                "gup_fast_sets_referenced": False,
                "scan_tests_base_address": False,
            },
            earlier=True,
        ),
        Variant(
            name="2.6.38-fixed",
            about="the patch with the base-address bug mended",
            changes={"scan_tests_base_address": False},
        ),
    ),
)

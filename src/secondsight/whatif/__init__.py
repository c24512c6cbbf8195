"""What if: policies and rules compared on recorded traces, one at a time or thousands; benefit, bloat and cost before one switches.

>>> from secondsight.whatif import compare
>>> results = compare("vm.parquet", ["khugepaged", "hawkeye,alpha=0.4", "oracle"], ["6.1", "7.2"])  # doctest: +SKIP
"""

from secondsight.whatif.combine import Combination, Range, combinations, parse_budget
from secondsight.whatif.comparison import compare
from secondsight.whatif.costs import CostModel

__all__ = ["Combination", "CostModel", "Range", "combinations", "compare", "parse_budget"]

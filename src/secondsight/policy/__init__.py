"""Who should be huge: khugepaged's own rule, and those of research and practice."""

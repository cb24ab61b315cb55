"""Pictures and pages from finished runs: python -m report."""

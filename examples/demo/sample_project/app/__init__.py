"""A small ledger: entries, totals and a text report."""

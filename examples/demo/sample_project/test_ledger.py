"""Check the ledger from text to report."""

import unittest

from app.metrics import balance, by_label, largest
from app.parser import Entry, parse
from app.report import amount, report

TEXT = """
1;rent;-640.00
2;salary;2100.50
9;food;-82.35
16;food;-67.15
"""


class LedgerTest(unittest.TestCase):
    """Run every function on one month."""

    def test_parse(self) -> None:
        """A line gives day, label and cents."""
        self.assertEqual(parse(TEXT)[2], Entry(9, "food", -8235))

    def test_balance(self) -> None:
        """The balance is the sum of all amounts."""
        self.assertEqual(balance(parse(TEXT)), 131100)

    def test_by_label(self) -> None:
        """Equal labels are added up."""
        self.assertEqual(by_label(parse(TEXT))["food"], -14950)

    def test_largest(self) -> None:
        """Size counts, not sign."""
        self.assertEqual(largest(parse(TEXT)).label, "salary")

    def test_report(self) -> None:
        """The report ends with the balance."""
        self.assertTrue(report(parse(TEXT)).endswith("1311.00"))

    def test_amount(self) -> None:
        """Negative cents keep their sign."""
        self.assertEqual(amount(-5), "-0.05")

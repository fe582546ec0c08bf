"""Check the list from text to report."""

import unittest

from app.parser import Item, parse
from app.report import report

TEXT = """
bread 3.20
apple 4.50
milk 0.90
"""


class ShoppingTest(unittest.TestCase):
    """Run every function on one list."""

    def test_parse(self) -> None:
        """A line gives name and cents."""
        self.assertEqual(parse(TEXT)[0], Item("bread", 320))

    def test_report(self) -> None:
        """The report is in alphabetical order."""
        self.assertEqual(report(parse(TEXT)), "apple bread milk")

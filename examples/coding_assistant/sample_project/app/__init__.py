"""A shopping list: items, and a report about them."""

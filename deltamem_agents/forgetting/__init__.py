"""Erase from every tier, and prove it."""

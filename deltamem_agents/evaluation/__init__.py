"""Measure the memory: recall, speed and size."""

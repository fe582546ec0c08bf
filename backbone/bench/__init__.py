"""Measure what the memory costs against the same frozen backbone in the same run: `python -m backbone.bench`."""

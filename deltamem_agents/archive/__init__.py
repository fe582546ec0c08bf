"""Keep what was said, verbatim, in SQL, and find it again by words and by meaning."""

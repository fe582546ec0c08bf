"""Attach a δ-mem working memory to a frozen decoder."""

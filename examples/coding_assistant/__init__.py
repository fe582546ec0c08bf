"""A coding assistant that works on one folder and remembers its conventions.

Imports inside are relative, so a copy of this folder works wherever it is put; `agent.py` is where to begin.
"""

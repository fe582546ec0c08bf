"""A data analyst that works on one table and says which assumptions each answer rests on.

Imports inside are relative, so a copy of this folder works wherever it is put; `agent.py` is where to begin.
"""

"""The analyst for LangGraph's server: run `langgraph dev` where langgraph.json is.

It works on the table that scikit-learn ships, saves its plots in the current folder, and its archive is that of the
settings.
"""

from pathlib import Path

from deltamem_agents.cli.options import settings_now
from examples.data_analyst.agent import data_agent
from examples.data_analyst.table import diabetes_table
from examples.studio.serving import open_memory

__all__ = ["graph"]

_model, _memory = open_memory(("data", "server"), settings_now())
graph = data_agent(_model, _memory, diabetes_table(), Path("plots"))

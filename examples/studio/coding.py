"""The assistant for LangGraph's server: run `langgraph dev` where langgraph.json is.

It works on a copy of the sample project in the current folder, and its archive is that of the settings.
"""

from deltamem_agents.cli.options import settings_now
from deltamem_agents.cli.talk import own_files
from examples.coding_assistant.agent import coding_agent
from examples.coding_assistant.run import sample_copy
from examples.coding_assistant.workspace import Limits, Workspace
from examples.studio.serving import open_memory

__all__ = ["graph"]

_settings = settings_now()
_model, _memory = open_memory(("coding", "server"), _settings)
_limits = Limits(result_characters=_model.window[0], shown_lines=3 if _model.model is None else None)
_workspace = Workspace(sample_copy(), limits=_limits, private=own_files(_settings))
graph = coding_agent(_model, _memory, _workspace)

"""Pin the names that programs may import: a change here is a change for users."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

PUBLIC = {
    "backbone": [
        "AdapterDescription",
        "AdapterError",
        "Backbone",
        "ConfigError",
        "Constraint",
        "DeltaMemConfig",
        "DeltaMemError",
        "Engine",
        "EngineClosedError",
        "EngineRegistry",
        "Finished",
        "HiddenOutput",
        "InvalidToolCall",
        "Job",
        "LayerDescription",
        "LayerTelemetry",
        "MemoryModel",
        "MemoryOutput",
        "MemoryState",
        "Prefilled",
        "PrefixCache",
        "PromptError",
        "ReasoningDelta",
        "RecallProbe",
        "RecallQuestion",
        "RenderedPrompt",
        "Sampling",
        "StateError",
        "StateFormatError",
        "StateMismatchError",
        "StateNotFiniteError",
        "StateVersionError",
        "Telemetry",
        "TextDelta",
        "TextStream",
        "TokenPrompt",
        "ToolCall",
        "ToolCallParser",
        "UnsupportedModelError",
        "WindowOverflowError",
        "attach_memory",
        "convert_adapter",
        "count_parameters",
        "decode",
        "default_registry",
        "describe_adapter",
        "find_adapter",
        "json_schema_constraint",
        "load_adapter",
        "load_backbone",
        "prefill",
        "recall_probe",
        "render_prompt",
        "save_adapter",
        "shared_engine",
        "tool_call_constraint",
    ],
    "deltamem_agents": [
        "AdapterError",
        "ChatDeltaMem",
        "ConfigError",
        "DeltaMemError",
        "DeltaMemMessagesState",
        "DeltaMemMiddleware",
        "EngineClosedError",
        "ForgetReceipt",
        "HybridMemory",
        "MemoryCell",
        "MemoryStore",
        "PromptError",
        "StateError",
        "StateFormatError",
        "StateMismatchError",
        "StateNotFiniteError",
        "StateVersionError",
        "TurnReport",
        "UnsupportedModelError",
        "WindowOverflowError",
        "WorkingMemory",
        "active_cell",
        "memory_from",
        "memory_node",
        "open_checkpointer",
        "recalled_text",
        "use_memory",
    ],
    "deltamem_agents.archive": [
        "ArchiveError",
        "EmbeddingError",
        "IndexBrokenError",
        "IndexBusyError",
        "IndexMismatchError",
        "IndexUnreachableError",
        "MemoryRetriever",
        "NewRecord",
        "PolicyRefusedError",
        "Record",
        "RecordConflictError",
        "RecordFilter",
        "RecordInvalidError",
        "RecordNotFoundError",
        "RecordStore",
        "VectorIndexError",
        "VersionConflictError",
    ],
    "deltamem_agents.policy": [
        "Budget",
        "Decision",
        "Finding",
        "Forget",
        "LegalHold",
        "MemoryPolicy",
        "Novelty",
        "PersonalData",
        "PolicyChain",
        "PolicyContext",
        "PolicyMessage",
        "Present",
        "Presidio",
        "RecordLike",
        "RedactedSpan",
        "Redaction",
        "RequireApproval",
        "Retain",
        "Retrieve",
        "Roles",
        "Secrets",
        "Signals",
        "SourceTrust",
        "TimeToLive",
        "Trust",
        "default_policy",
        "describe",
        "load_policy",
        "lowest_trust",
        "redact_named",
        "redact_secrets",
    ],
}
AGENTS = sorted((Path(__file__).parents[1] / "deltamem_agents").rglob("*.py"))


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_exactly_these(package: str) -> None:
    """The list of names is sorted, complete, and changes only together with this test."""
    assert import_module(package).__all__ == PUBLIC[package]


@pytest.mark.parametrize(("package", "name"), [(package, name) for package in PUBLIC for name in PUBLIC[package]])
def test_public_name_resolves_and_is_documented(package: str, name: str) -> None:
    """Every public name can be imported, is listed by dir(), and says what it is."""
    module = import_module(package)
    assert getattr(module, name).__doc__
    assert name in dir(module)


@pytest.mark.parametrize("package", PUBLIC)
def test_unknown_name_is_an_attribute_error(package: str) -> None:
    """A name that does not exist is refused as in any module."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = import_module(package).no_such_name


@pytest.mark.parametrize("path", AGENTS, ids=str)
def test_agents_import_only_public_names_of_backbone(path: Path) -> None:
    """deltamem_agents reaches into no submodule of backbone, and takes nothing that is not public."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    used = [node for node in imports if (node.module or "").partition(".")[0] == "backbone"]
    assert [node.module for node in used if node.module != "backbone"] == []
    assert {alias.name for node in used for alias in node.names} <= set(PUBLIC["backbone"])

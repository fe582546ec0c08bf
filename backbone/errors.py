"""Hold the project's exception tree.

DeltaMemError
├── ConfigError            an option has a value that cannot work (also a ValueError)
├── AdapterError           an adapter cannot be read, attached or matched (also a ValueError)
├── UnsupportedModelError  a backbone whose layers the memory cannot attach to (also a TypeError)
├── StateError             a memory state cannot be used (also a ValueError)
│   ├── StateFormatError       truncated, altered, oversized or not a state at all
│   ├── StateVersionError      written by a newer version of this project
│   ├── StateMismatchError     belongs to another adapter, backbone or shape
│   └── StateNotFiniteError    holds NaN or infinity
├── PromptError            messages cannot be turned into a prompt (also a ValueError)
│   └── WindowOverflowError    a single message is larger than the window
└── EngineClosedError      a job was given to an engine that has been closed (also a RuntimeError)
"""

__all__ = [
    "AdapterError",
    "ConfigError",
    "DeltaMemError",
    "EngineClosedError",
    "PromptError",
    "StateError",
    "StateFormatError",
    "StateMismatchError",
    "StateNotFiniteError",
    "StateVersionError",
    "UnsupportedModelError",
    "WindowOverflowError",
]


class DeltaMemError(Exception):
    """Be the base of every error that this project raises on purpose."""


class ConfigError(DeltaMemError, ValueError):
    """Report an option whose value cannot work."""


class AdapterError(DeltaMemError, ValueError):
    """Report an adapter that cannot be read, attached or matched."""


class UnsupportedModelError(DeltaMemError, TypeError):
    """Report a backbone whose layers the memory cannot attach to."""


class StateError(DeltaMemError, ValueError):
    """Report a memory state that cannot be used."""


class StateFormatError(StateError):
    """Report bytes that are truncated, altered, oversized or not a state."""


class StateVersionError(StateError):
    """Report a state written by a newer version of this project."""


class StateMismatchError(StateError):
    """Report a state of another adapter, backbone or shape."""


class StateNotFiniteError(StateError):
    """Report a state that holds NaN or infinity."""


class PromptError(DeltaMemError, ValueError):
    """Report messages that cannot be turned into a prompt."""


class WindowOverflowError(PromptError):
    """Report a single message that is larger than the window."""


class EngineClosedError(DeltaMemError, RuntimeError):
    """Report a job that was given to a closed engine."""

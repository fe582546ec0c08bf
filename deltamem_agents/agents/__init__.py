"""The example agents, as `deltamem agent` runs them.

Their one source is `examples/`, where people read and copy it. In a source tree this package looks there; in a wheel
they lie in this package, where pyproject.toml puts them.
"""

from pathlib import Path

__path__ += [str(Path(__file__).parents[2] / "examples")]

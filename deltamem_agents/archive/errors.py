"""Name what can go wrong with the archive; every error is a DeltaMemError.

ArchiveError
├── RecordInvalidError     a field of a record cannot be stored (also a ValueError)
├── RecordNotFoundError    no such record in this namespace (also a LookupError)
├── RecordConflictError    another write came first
│   └── VersionConflictError   the record is no longer at the expected version
├── PolicyRefusedError     a policy does not let something be written
├── EmbeddingError         an embedding model failed, or returned what cannot be compared
└── VectorIndexError       the vector index cannot be used; the record is whole, and full-text search goes on
    ├── IndexBusyError         another process owns the index directory
    ├── IndexBrokenError       the index is damaged, stale or missing; `rebuild` makes a new one
    ├── IndexMismatchError     the index was made by another embedding model; `rebuild` makes a new one
    └── IndexUnreachableError  the Chroma server does not answer, or Chroma's process does not start
"""

from backbone import DeltaMemError

__all__ = [
    "ArchiveError",
    "EmbeddingError",
    "IndexBrokenError",
    "IndexBusyError",
    "IndexMismatchError",
    "IndexUnreachableError",
    "PolicyRefusedError",
    "RecordConflictError",
    "RecordInvalidError",
    "RecordNotFoundError",
    "VectorIndexError",
    "VersionConflictError",
]


class ArchiveError(DeltaMemError):
    """Report an archive that cannot do what it was asked."""


class RecordInvalidError(ArchiveError, ValueError):
    """Report a field that cannot be stored."""


class RecordNotFoundError(ArchiveError, LookupError):
    """Report a record that the namespace does not hold."""


class RecordConflictError(ArchiveError):
    """Report a write that another one has made impossible."""


class VersionConflictError(RecordConflictError):
    """Report a record that is no longer at the version its writer has seen."""


class PolicyRefusedError(ArchiveError):
    """Report a policy that does not let something be written; nothing of the call is stored."""


class EmbeddingError(ArchiveError):
    """Report an embedding model that failed, or vectors that cannot be compared."""


class VectorIndexError(ArchiveError):
    """Report a vector index that cannot be used."""


class IndexBusyError(VectorIndexError):
    """Report an index directory that another process or store has open."""


class IndexBrokenError(VectorIndexError):
    """Report an index that is damaged, stale or missing."""


class IndexMismatchError(VectorIndexError):
    """Report an index whose vectors are of another model or size."""


class IndexUnreachableError(VectorIndexError):
    """Report a Chroma server that does not answer, or a process of Chroma's that does not start."""

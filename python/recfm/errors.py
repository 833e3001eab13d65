"""Every error that recfm raises on purpose.

One base class, a few subclasses named after what is wrong. A message names the column or file, the value
that was found and what to do about it. The Rust core raises these same classes. Anything else that escapes
(a `PanicException`, a bare `IndexError`) is a bug in recfm.
"""


class RecfmError(Exception):
    """Base of all recfm errors."""


class SchemaError(RecfmError, ValueError):
    """The schema and the data disagree: a missing column, a wrong dtype, two features of one name."""


class DataError(RecfmError, ValueError):
    """The data itself is unusable: nulls in a key column, labels outside 0/1, an empty period."""


class MetricError(RecfmError, ValueError):
    """A metric is undefined on this input, for example AUC where every label is the same."""


class LeakError(RecfmError, ValueError):
    """An operation would let a row see its own future, or an FM score rows that it trained on."""


class LogError(RecfmError, OSError):
    """An embedding log cannot be read or written: truncated, corrupted, or from another FM."""


class StorageError(RecfmError, OSError):
    """A result cannot be written to disk."""


class ConfigError(RecfmError, ValueError):
    """A configuration key or value is not known."""


class DownloadError(RecfmError, OSError):
    """A data set could not be fetched and is not in the cache."""

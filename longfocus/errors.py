"""Errors that a user can mend, shown by the command line as one line.

UserError
├── DocumentError      a document that cannot be read (missing, empty, binary, encrypted, ...)
├── BookError          a Book folder that cannot be used (foreign, corrupt, locked, other model, ...)
├── CheckpointError    a model that cannot be found, fetched or loaded
└── RequestError       a question or an option that cannot be served

Each message says what was wanted, what came and what to do. Anything else that escapes is a defect of
ours and keeps its traceback. The files under `longfocus/model` ship alone beside a checkpoint, so they raise
plain ValueError and TypeError.
"""

READ_ANEW = "remove the folder and read the document again"
"""What to do about a Book that is damaged: while its folder is there, reading would go on with it."""

_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "failed to map segment",
    "Cannot allocate memory",
)


class UserError(Exception):
    """An error whose message is enough for a user to mend the cause."""


class DocumentError(UserError):
    """A document that cannot be read."""


class BookError(UserError):
    """A Book folder that cannot be used as asked."""


class CheckpointError(UserError):
    """A model that cannot be found, fetched or loaded."""


class RequestError(UserError):
    """A question or an option that cannot be served."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation was refused: Python's own, torch's, or that of a library that is loaded."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)

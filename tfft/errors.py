"""Errors of tfft: each is a `TfftError` and also the built-in kind a caller would catch anyway.

A message says what was expected, what was received and what to do, in one line.
"""


class TfftError(Exception):
    """Base of every error tfft raises on purpose; the command line prints it as one line."""


class InvalidValueError(TfftError, ValueError):
    """A setting or an argument that cannot be used."""


class DataError(TfftError, ValueError):
    """Rows that cannot be used as they are."""


class NotFoundError(TfftError, FileNotFoundError):
    """A file, folder, backbone or run that is not there."""


class FreezeError(TfftError, RuntimeError):
    """The freeze contract was broken: a frozen variable moved, or nothing learns."""


class ExportError(TfftError, RuntimeError):
    """An export that would not serve."""


class ServerError(TfftError, RuntimeError):
    """What a server answered in place of a result.

    Attributes:
        status: HTTP's; None where there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class StackError(TfftError, ImportError):
    """The installed TensorFlow, TF-Text, Keras and KerasHub do not fit together."""

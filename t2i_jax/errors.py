"""The exceptions for what a person can put right. Their message is all that the command line prints."""
from tfds_builders.errors import DataError

__all__ = ['DataError', 'RunError']


class RunError(ValueError):
    """Something about a run: its config, its workdir, a checkpoint. Its message is all that the command line prints."""

"""The one exception for what a person can put right: a missing file, a mistyped name, a broken archive."""


class DataError(ValueError):
    """Its message names the thing and the remedy, and is all that the command line prints."""

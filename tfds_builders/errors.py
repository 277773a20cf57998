"""The exception for what a user can put right.

Such as a missing file, a mistyped name, a broken archive.
"""


class DataError(ValueError):
    """A problem with data; its message names the thing and the remedy.

    The message is all that the command line prints.
    """

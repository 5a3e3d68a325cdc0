"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what to do. The command line prints it and exits with 2."""

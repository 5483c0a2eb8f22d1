"""Exit statuses by which a role process tells its supervisor why it ended."""

EXIT_MISCONFIGURED = 2
"""The role cannot run with this configuration. It counts only before the role was ready: user code may exit so too."""
EXIT_REPLACE = 75
"""User code does not stop: the supervisor shall replace this process. It counts towards no restart limit."""
EXIT_LEFT = 76
"""A temporary role had nothing left to do. Status 0 does not say so: user code may end its process with it."""

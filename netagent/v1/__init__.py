"""The wire contract: what protoc makes of ``proto/netagent/v1``, and the names of what errors carry beside it."""

ERROR_KIND = "netagent-kind"
"""Trailing metadata: the name of the error's class in ``netagent.errors``."""
ERROR_HINT = "netagent-hint-bin"
"""Trailing metadata: the way out, UTF-8."""
ERROR_EXIT_STATUS = "netagent-exit-status"
"""Trailing metadata: the exit status of ``netagent run`` if a container's command is at fault, in decimal."""

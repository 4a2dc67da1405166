"""Labels: what users note on networks and containers, as Docker has them."""

from collections.abc import Mapping

from netagent.errors import InvalidRequest

LABEL_LIMIT = 4096
"""Characters of a label's name, and of its value."""

LABELS_LIMIT = 1024
"""Labels of one object."""

_SHOWN = 40


def parse_labels(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return labels sorted by name; InvalidRequest, in Docker's words, if one has no name."""
    if len(labels) > LABELS_LIMIT:
        raise InvalidRequest(f"{len(labels)} labels", hint=f"at most {LABELS_LIMIT}")
    for key, value in labels.items():
        if not key:
            raise InvalidRequest(f"invalid label '={value[:_SHOWN]}': empty name", hint="--label KEY=VALUE")
        if len(key) > LABEL_LIMIT or len(value) > LABEL_LIMIT:
            raise InvalidRequest(
                f"label {key[:_SHOWN]!r} is too long", hint=f"at most {LABEL_LIMIT} characters of name and of value"
            )
    return tuple(sorted(labels.items()))

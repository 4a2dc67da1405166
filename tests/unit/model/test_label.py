import pytest

from netagent.errors import InvalidRequest
from netagent.model.label import LABEL_LIMIT, LABELS_LIMIT, parse_labels


def test_labels_are_kept_in_the_order_of_their_names() -> None:
    assert parse_labels({"b": "2", "a": "", "é\n": "="}) == (("a", ""), ("b", "2"), ("é\n", "="))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"": "x" * 99}, f"invalid label '={'x' * 40}': empty name"),
        ({"k" * (LABEL_LIMIT + 1): ""}, f"label '{'k' * 40}' is too long"),
        ({"k": "v" * (LABEL_LIMIT + 1)}, "label 'k' is too long"),
        ({str(n): "" for n in range(LABELS_LIMIT + 1)}, f"{LABELS_LIMIT + 1} labels"),
    ],
)
def test_a_label_without_name_or_too_much_of_them_is_refused(labels: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_labels(labels)
    assert refused.value.message == said

"""Which processes are the agent's own programs: their notifications are no reason to look."""

import time

import pytest

from netagent.kernel.xtables import ProgramRefusalError, Programs


@pytest.fixture
def programs() -> Programs:
    found = object.__new__(Programs)
    found._own = {}
    return found


def test_a_program_that_has_just_ended_is_ours_and_its_number_is_somebody_elses_later(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = int(programs._run(("sh", "-c", "echo $$")))
    assert programs.is_own(first)
    assert not programs.is_own(first + 1)
    later = time.monotonic() + 60
    monkeypatch.setattr("netagent.kernel.xtables.time.monotonic", lambda: later)
    assert not programs.is_own(first)
    second = int(programs._run(("sh", "-c", "echo $$")))
    assert programs._own.keys() == {second}


def test_a_program_that_refuses_is_ours_too(programs: Programs) -> None:
    with pytest.raises(ProgramRefusalError, match=r"^sh: [0-9]+$") as refusal:
        programs._run(("sh", "-c", "echo $$ >&2; exit 1"))
    assert programs.is_own(int(str(refusal.value).removeprefix("sh: ")))

import pytest

from netagent.errors import EnvironmentProblem, InvalidRequest
from netagent.model.ids import ContainerId
from netagent.runtime.refusal import refusal

ID = ContainerId("ab" * 32)


@pytest.mark.parametrize(
    ("complaint", "message", "status"),
    [
        (
            'unable to start container process: exec: "nonesuch": executable file not found in $PATH',
            "cannot run 'nonesuch': executable file not found in $PATH",
            127,
        ),
        (
            'exec failed: unable to start container process: exec: "/x/y": stat /x/y: no such file or directory',
            "cannot run '/x/y': stat /x/y: no such file or directory",
            127,
        ),
        (
            'runc create failed: unable to start container process: exec: "/etc/passwd": permission denied',
            "cannot run '/etc/passwd': permission denied",
            126,
        ),
        (
            '{"level":"error","msg":"exec: \\"/tmp\\": is a directory","time":"2026-01-01T00:00:00Z"}',
            "cannot run '/tmp': is a directory",
            126,
        ),
        ("executable file `nonesuch` not found in $PATH: No such file or directory", "cannot run 'nonesuch'", 127),
    ],
)
def test_a_command_at_fault_has_dockers_status(complaint: str, message: str, status: int) -> None:
    error = refusal(ID, "create", complaint)
    assert isinstance(error, InvalidRequest)
    assert error.message.startswith(message)
    assert error.facts["exit_status"] == status


def test_a_missing_file_that_is_not_the_command_is_not_127() -> None:
    error = refusal(ID, "create", "runc create failed: unable to mount /x: no such file or directory")
    assert isinstance(error, EnvironmentProblem)
    assert error.message == (
        "the OCI runtime refused to create container abababababab: "
        "runc create failed: unable to mount /x: no such file or directory"
    )
    assert error.facts["exit_status"] == 125


def test_mounting_a_directory_onto_a_file_is_explained() -> None:
    error = refusal(ID, "create", 'error mounting "/etc" to rootfs at "/etc/passwd": not a directory')
    assert isinstance(error, InvalidRequest)
    assert "check both paths of -v" in error.hint
    assert error.facts["exit_status"] == 125


def test_silence_is_named_too() -> None:
    assert "no reason given" in refusal(ID, "start", "").message

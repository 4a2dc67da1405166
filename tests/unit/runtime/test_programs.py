from pathlib import Path

import pytest

from netagent.errors import EnvironmentProblem
from netagent.runtime.programs import Programs, environment, find_programs, require_capabilities


def install(directory: Path, *names: str) -> str:
    for name in names:
        (directory / name).touch(mode=0o755)
    return str(directory)


@pytest.mark.parametrize(
    ("present", "package"), [([], "runc"), (["conmon"], "runc"), (["runc"], "conmon"), (["crun"], "conmon")]
)
def test_a_missing_program_is_named_with_its_package(tmp_path: Path, present: list[str], package: str) -> None:
    with pytest.raises(EnvironmentProblem) as refused:
        find_programs(install(tmp_path, *present))
    assert refused.value.hint == f"apt-get install {package}"


def test_runc_is_preferred_to_crun(tmp_path: Path) -> None:
    path = install(tmp_path, "runc", "crun", "conmon")
    assert find_programs(path) == Programs(runtime=f"{path}/runc", monitor=f"{path}/conmon")


def test_crun_serves_without_runc(tmp_path: Path) -> None:
    path = install(tmp_path, "crun", "conmon")
    assert find_programs(path).runtime == f"{path}/crun"


def test_a_container_is_refused_what_the_agent_itself_lacks(tmp_path: Path) -> None:
    """0x3fffffffff is everything up to CAP_AUDIT_READ; bit 27 is CAP_MKNOD, and bit 25 CAP_SYS_TIME."""
    status = tmp_path / "status"
    status.write_text("CapEff:\t0000000000000000\nCapBnd:\t0000003fffffffff\n")
    require_capabilities(("CAP_SYS_TIME",), status=status)
    status.write_text("CapBnd:\t0000003ff5ffffff\n")
    with pytest.raises(EnvironmentProblem, match=r"lacks CAP_SYS_TIME, CAP_MKNOD \(") as refused:
        require_capabilities(("CAP_SYS_TIME",), status=status)
    assert "run.conf" in refused.value.hint
    with pytest.raises(EnvironmentProblem, match=r"lacks CAP_MKNOD \("):
        require_capabilities((), status=status)


def test_the_programs_inherit_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETAGENT_TOKEN", "secret")
    monkeypatch.setenv("TMPDIR", "/somewhere")
    assert environment().keys() == {"PATH"}

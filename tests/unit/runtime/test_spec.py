import msgspec
import pytest

from netagent.errors import InvalidRequest
from netagent.model.ids import ContainerId
from netagent.runtime.spec import (
    BindMount,
    ContainerSpec,
    TextFile,
    parse_directory,
    parse_environment,
    parse_mount,
    parse_mounts,
)


def test_a_variable_without_value_is_taken_from_the_caller() -> None:
    assert parse_environment(["HOME", "A=b=c", "EMPTY="], {"HOME": "/root"}) == (
        ("HOME", "/root"),
        ("A", "b=c"),
        ("EMPTY", ""),
    )


def test_a_variable_that_the_caller_lacks_is_left_out() -> None:
    assert parse_environment(["MISSING"], {}) == ()


def test_the_last_of_several_values_wins() -> None:
    assert parse_environment(["A=1", "A=2"], {}) == (("A", "2"),)


@pytest.mark.parametrize("text", ["", "=x", "A=\0"])
def test_a_variable_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid environment variable"):
        parse_environment([text], {})


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a:/b", BindMount(source="/a", destination="/b")),
        ("/a:/b:ro", BindMount(source="/a", destination="/b", read_only=True)),
        ("/a:/b:rw", BindMount(source="/a", destination="/b")),
        ("//a/../c/:/b//d/", BindMount(source="/c", destination="/b/d")),
    ],
)
def test_a_mount_is_read(text: str, mount: BindMount) -> None:
    assert parse_mount(text) == mount


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/a", "invalid volume specification: '/a'"),
        ("", "invalid volume specification: ''"),
        ("/a:", "invalid volume specification: '/a:'"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        ("/a:/b:private", "invalid mode: private"),
        ("/a:b", "invalid mount path: 'b' mount path must be absolute"),
        ("/a:/b/..", "destination can't be '/'"),
        ("data:/b", "If you intended to pass a host directory, use absolute path"),
    ],
)
def test_a_bad_mount_is_refused_in_dockers_words(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_mount(text)
    assert words in str(refused.value)


def test_two_mounts_at_one_place_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="Duplicate mount point: /x"):
        parse_mounts(["/a:/x", "/b:/x/"])


def test_a_directory_must_be_absolute() -> None:
    assert parse_directory("/a//b/", what="working directory") == "/a/b"
    with pytest.raises(InvalidRequest, match="the working directory 'a' is invalid, it needs to be an absolute path"):
        parse_directory("a", what="working directory")


def test_a_spec_survives_the_journal() -> None:
    spec = ContainerSpec(
        id=ContainerId("ab" * 32),
        name="web",
        command=("sleep", "1"),
        hostname="web",
        environment=(("A", "1"),),
        mounts=(BindMount(source="/a", destination="/b", read_only=True),),
        files=(TextFile(path="/etc/hosts", text="127.0.0.1 localhost\n"),),
        sandbox="/run/netns/x",
    )
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ContainerSpec) == spec

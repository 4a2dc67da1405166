from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.runtime.text_files import merge_lines, update_text, write_text

lines = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), unique=True, max_size=5).map(
    lambda chosen: "".join(f"{line}\n" for line in chosen)
)


@given(lines, lines)
def test_an_untouched_file_becomes_what_is_wanted(written: str, wanted: str) -> None:
    assert merge_lines(written, written, wanted) == wanted


@given(lines, lines, lines)
def test_lines_of_others_stay_and_ours_are_exchanged(text: str, written: str, wanted: str) -> None:
    merged = set(merge_lines(text, written, wanted).split())
    assert merged == (set(text.split()) - set(written.split())) | set(wanted.split())


def test_a_text_is_changed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "files" / "hosts"
    write_text(path, "one\ntwo\n")
    inode = path.stat().st_ino
    path.write_text("one\ntwo\nby hand\n")
    update_text(path, "one\nthree\n")
    assert path.read_text() == "one\nby hand\nthree\n"
    assert path.stat().st_ino == inode
    update_text(path, "one\n")
    assert path.read_text() == "one\nby hand\n"


def test_what_was_never_written_is_not_changed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        update_text(tmp_path / "hosts", "one\n")

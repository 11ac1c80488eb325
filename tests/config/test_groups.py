import os

from ddpm.config import groups


def test_what_a_file_says_is_the_caller_s_own():
    said = groups.content_of("trainer", "auto")
    assert said["devices"] == "auto"
    said["devices"] = 7
    assert groups.content_of("trainer", "auto")["devices"] == "auto"


def test_interpolations_are_left_as_text_and_a_file_that_changes_is_read_anew(tmp_path):
    file = tmp_path / "one.yaml"
    file.write_text("a: ${b}\nb: [1, 2]\n")
    assert groups.content(file) == {"a": "${b}", "b": [1, 2]}
    file.write_text("a: 3\n")
    os.utime(file, ns=(1, 1))  # another moment, however coarse the clock of the file system is
    assert groups.content(file) == {"a": 3}
    (tmp_path / "empty.yaml").touch()
    assert groups.content(tmp_path / "empty.yaml") == {}

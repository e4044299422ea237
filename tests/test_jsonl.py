"""jsonl.py: what a kill may leave in a file, what is wrong in one, and that nothing else is lost."""

import pytest

from minidrpo.rundir import jsonl

ODD = '\u2028 \u0000 \N{GREEK SMALL LETTER LAMDA} \ud800 "\\\n'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.jsonl"


def test_what_is_written_is_read_whatever_the_text(path):
    records = [{"step": s, "text": ODD} for s in range(3)]
    jsonl.write(path, records)
    jsonl.append(path, iter(records))
    assert list(jsonl.lines(path)) == jsonl.read(path) == records * 2
    assert [p.name for p in path.parent.iterdir()] == ["log.jsonl"]
    text = path.read_bytes().decode("utf-8")  # valid UTF-8, and readable
    assert text.count("\n") == 6 and "\N{GREEK SMALL LETTER LAMDA}" in text


def test_no_file_holds_nothing(path):
    assert list(jsonl.lines(path)) == jsonl.read(path) == []
    jsonl.keep_until(path, 3)
    assert not path.exists()


@pytest.mark.parametrize("torn", [b'{"step": 2, "te', b'{"step": 2}', '{"step": "\u03bb'.encode()[:-1]])
def test_a_torn_last_line_is_left_out(path, torn):
    """Also one that lacks only its newline: whether more was to follow cannot be told."""
    path.write_bytes(b'{"step": 1}\n' + torn)
    assert jsonl.read(path) == [{"step": 1}]
    jsonl.keep_until(path, 9)
    assert path.read_bytes() == b'{"step": 1}\n'


def test_what_is_appended_after_a_torn_line_starts_a_new_one(path):
    path.write_bytes(b'{"step": 1}\n{"st')
    jsonl.append(path, [{"step": 2}])
    jsonl.append(path, [{"step": 3}])
    assert path.read_bytes() == b'{"step": 1}\n{"st\n{"step": 2}\n{"step": 3}\n'
    assert [r["step"] for r in jsonl.lines(path, skip_broken=True)] == [1, 2, 3]


@pytest.mark.parametrize(
    "line, message",
    [
        (b'{"st', "Invalid control character"),
        (b"3", "not an object with index and source"),
        (b'{"source": "a"}', "not an object with index and source"),
        (b"", "Expecting value"),
        (b'{"source": "\xff", "index": 1}', "utf-8"),
        (b"[" * 10**5, "recursion"),
    ],
)
def test_a_broken_line_is_named_or_skipped(path, line, message):
    good = b'{"source": "a", "index": 1, "more": 2}\n'
    path.write_bytes(good + line + b"\n" + good)
    with pytest.raises(ValueError, match=message) as caught:
        list(jsonl.lines(path, ("source", "index")))
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert [r["more"] for r in jsonl.lines(path, ("source", "index"), skip_broken=True)] == [2, 2]


def test_a_step_is_a_whole_number(path):
    for step in ("2", True, 2.0):
        jsonl.write(path, [{"step": 1}, {"step": step}])
        with pytest.raises(ValueError, match=f"log.jsonl, line 2: step is {step!r}, not a whole number"):
            jsonl.read(path)


def test_a_file_that_cannot_be_read_is_named(path):
    path.mkdir()
    with pytest.raises(ValueError, match="log.jsonl is a directory, not a file"):
        jsonl.read(path)
    path.rmdir()
    path.symlink_to(path)
    with pytest.raises(ValueError, match="log.jsonl cannot be read: Too many levels"):
        jsonl.read(path)


def test_records_after_a_step_are_dropped(path):
    jsonl.write(path, [{"step": s} for s in (1, 2, 2, 3)])
    jsonl.keep_until(path, 2)
    assert [r["step"] for r in jsonl.read(path)] == [1, 2, 2]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match="could not write .*gone"):
        jsonl.append(tmp_path / "gone" / "log.jsonl", [{"step": 1}])


def test_a_failed_write_leaves_the_old_file(path):
    jsonl.write(path, [{"step": 1}])
    with pytest.raises(TypeError):
        jsonl.write(path, [{"step": 2}, {"step": object()}])
    assert jsonl.read(path) == [{"step": 1}]

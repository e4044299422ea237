"""What a data file's rows become: its columns, its numbers as they were written, and files of another kind by name."""

import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import reward
from minidrpo.tasks import data

PUZZLE = {"quiz": "So who is who?", "names": ["Zoey", "Jack"], "solution": [True, False], "answer": 3, "problem": "x"}


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "A.PARQUET", "A.JSONL", "A.Json"])
def test_a_puzzle_is_one_whatever_else_its_file_holds(tmp_path, name):
    """A Parquet file lost the puzzle's columns where there was another question."""
    if name.lower().endswith("parquet"):
        pq.write_table(pa.Table.from_pylist([PUZZLE]), tmp_path / name)
    else:
        (tmp_path / name).write_text(json.dumps(PUZZLE))
    (problem,) = data.load_problems(str(tmp_path / name))
    assert problem.grader == "knights" and problem.truth == "(1) Zoey is a knight\n(2) Jack is a knave"


def test_a_file_of_another_kind_is_named(tmp_path):
    row = json.dumps({"problem": "q", "answer": 1})
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(row.encode()))
    (tmp_path / "b.parquet").write_bytes(gzip.compress(row.encode()))
    pq.write_table(pa.table({"problem": ["q"], "answer": [1]}), tmp_path / "c.json")
    for name, words in (("a.jsonl", "compressed with gzip"), ("b.parquet", "with gzip"), ("c.json", "a Parquet file")):
        with pytest.raises(ValueError, match=f"{name}: is .*{words}"):
            data.load_problems(str(tmp_path / name))


@pytest.mark.parametrize("digits", [310, 4300])
def test_a_whole_number_of_any_length_is_a_truth(tmp_path, digits):
    (tmp_path / "a.jsonl").write_text('{"problem": "q", "answer": 1%s}' % ("0" * (digits - 1)))
    (problem,) = data.load_problems(str(tmp_path / "a.jsonl"))
    assert problem.truth == 10 ** (digits - 1)
    assert reward.same_answer(str(problem.truth), problem.truth)


def test_short_floats_keep_whole_numbers_and_leave_their_neighbours_alone(tmp_path):
    """The shortest name of 123456792 in float32 is 123456790; and a float64 beside a float32 was shortened, too."""
    kind = pa.struct([("ground_truth", pa.list_(pa.float64())), ("score", pa.float32())])
    wanted = [123456792.0, 0.123456789]
    values = pa.array([{"ground_truth": wanted, "score": 0.1}, None], kind)
    pq.write_table(pa.table({"problem": ["q", "r"], "reward_model": values}), tmp_path / "a.parquet")
    pq.write_table(
        pa.table({"problem": ["q"], "answer": pa.array([123456792.0], pa.float32())}), tmp_path / "b.parquet"
    )
    assert data.read_rows(str(tmp_path / "a.parquet"))[0]["reward_model"] == {"ground_truth": wanted, "score": 0.1}
    assert data.load_problems(str(tmp_path / "b.parquet"))[0].truth == 123456792.0


def test_short_floats_of_a_hub_data_set_likewise():
    values = {"problem": ["q", "r"], "answer": [0.1, 123456792.0]}
    kinds = datasets.Features({"problem": datasets.Value("string"), "answer": datasets.Value("float32")})
    rows, _ = data.hub_rows("a/b", "train", lambda *_, **__: datasets.Dataset.from_dict(values, features=kinds))
    assert [row["answer"] for row in rows] == values["answer"]


def test_a_truth_written_as_json_text_is_read():
    row = {"prompt": "q", "reward_model": '{"style": "rule", "ground_truth": "204"}'}
    assert data.rows_to_problems([row], "s", "w")[0].truth == "204"
    with pytest.raises(ValueError, match="row 0, column 'reward_model': want an object with 'ground_truth', got str"):
        data.rows_to_problems([row | {"reward_model": '{"ground_truth": '}], "s", "w")

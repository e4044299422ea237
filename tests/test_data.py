"""data.py: both schemas from every kind of file, one clear line for what is wrong, prompts as ids, the batch order."""

import dataclasses
import json
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from minidrpo.records import Problem
from minidrpo.tasks import arithmetic, data

PLAIN = [{"problem": "1 + 1?", "answer": "2"}, {"problem": "2 * 3?", "answer": 6}]


def official(text, truth):
    return {
        "data_source": "",
        "prompt": [{"role": "user", "content": text}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"split": "test", "index": 0},
    }


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)) + "\n\n")
    return str(path)


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", data.SUFFIXES)
@pytest.mark.parametrize("truths", [["204", "3/4"], [70, 0], [142.0, 0.0], [["9.6\n"], ["a", "b"]]])
def test_official_schema_keeps_text_and_answer_types(tmp_path, suffix, truths):
    path = write(tmp_path / f"bench{suffix}", [official("Why? " + data.SUFFIX, truth) for truth in truths])
    problems = data.load_problems(path)
    assert [p.truth for p in problems] == truths
    assert [type(p.truth) for p in problems] == [type(t) for t in truths]  # 142.0 stays a float, 70 an int
    assert [(p.prompt, p.source, p.index) for p in problems] == [("Why? " + data.SUFFIX, "bench", i) for i in (0, 1)]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_plain_schema(tmp_path, suffix):
    problems = data.load_problems(write(tmp_path / f"own{suffix}", PLAIN))
    assert problems == [Problem("1 + 1?", "2", "own", 0), Problem("2 * 3?", 6, "own", 1)]
    assert len(data.load_problems(str(tmp_path / f"own{suffix}"), n=1)) == 1


def test_json_file_may_hold_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "lines.json"
    path.write_text("\ufeff" + "\n".join(map(json.dumps, PLAIN)))
    assert len(data.load_problems(str(path))) == 2


def test_line_separator_inside_a_string_does_not_cut_the_row(tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps({"problem": "a\u2028b", "answer": "1"}, ensure_ascii=False))
    assert data.load_problems(str(path))[0].prompt == "a\u2028b"


def test_numpy_values_become_plain_python():
    rows = [
        {"prompt": np.array([{"role": "user", "content": "q"}], dtype=object), "reward_model": {"ground_truth": t}}
        for t in (np.int64(7), np.float64(0.5), np.array(["x", "y"], dtype=object), np.array([1, 2]), np.str_("s"))
    ]
    answers = [p.truth for p in data.rows_to_problems(rows, "s", "w")]
    assert answers == [7, 0.5, ["x", "y"], [1, 2], "s"]
    assert [type(a) for a in answers] == [int, float, list, list, str] and type(answers[3][0]) is int


def test_gsm8k_answer_behind_its_mark():
    assert data.rows_to_problems([{"question": "q", "answer": "2+2=4\n#### 4"}], "s", "w")[0].truth.strip() == "4"


# ---------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("empty", [None, "", "  ", float("nan"), [], [""], [None], ["2", ""], np.array([])])
def test_row_without_a_truth_is_named(tmp_path, empty):
    with pytest.raises(ValueError, match=r"some.json: row 1, column 'answer'.*no truth") as caught:
        data.rows_to_problems([*PLAIN[:1], {"problem": "?", "answer": empty}], "some", "some.json")
    assert "\n" not in str(caught.value)
    rows = [official("q", "1"), official("q", None)]
    with pytest.raises(ValueError, match=r"some.json: row 1, column 'reward_model.ground_truth'"):
        data.load_problems(write(tmp_path / "some.json", rows))
    assert len(data.rows_to_problems(rows, "s", "w", skip_unanswered=True)) == 1
    with pytest.raises(ValueError, match="row 0"):
        data.rows_to_problems(rows[1:], "s", "w", skip_unanswered=True)


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"text": "q", "answer": "1"}], "row 0 has no column for the question .*'problem'.*it has text, answer"),
        ([{"problem": "q", "solution": "1"}], "row 0 has no column for the truth .*it has problem, solution"),
        ([PLAIN[0], {"problem": "q"}], "row 1 has no column 'answer'; it has problem"),
        ([PLAIN[0], {"problem": " ", "answer": 1}], "row 1, column 'problem': .*empty text"),
        ([PLAIN[0], {"problem": None, "answer": 1}], "row 1, column 'problem': .*nothing"),
        ([PLAIN[0], "text"], "row 1 is str"),
        ([{"problem": "q", "answer": True}], "row 0, column 'answer': .*bool"),
        ([{"problem": "q", "answer": {"a": 1}}], "row 0, column 'answer': .*dict"),
        ([{"problem": "q", "answer": [["1"]]}], "row 0, column 'answer': .*another list"),
        ([{"prompt": [], "reward_model": {"ground_truth": 1}}], "row 0, column 'prompt': .*one message"),
        ([{"prompt": [{"role": "user", "content": "a"}] * 2, "reward_model": {"ground_truth": 1}}], "got 2 message"),
        ([{"prompt": [{"role": "system", "content": "a"}], "reward_model": {"ground_truth": 1}}], "system"),
        ([{"prompt": [{"role": "user"}], "reward_model": {"ground_truth": 1}}], "row 0, column 'prompt': .*nothing"),
        ([{"prompt": "q", "reward_model": "1"}], "row 0, column 'reward_model': .*'ground_truth'"),
        ([], "holds no rows"),
    ],
)
def test_bad_rows_get_one_line(tmp_path, rows, message):
    with pytest.raises(ValueError, match="bad.json: .*" + message) as caught:
        data.load_problems(write(tmp_path / "bad.json", rows))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("gone.parquet", None, "no such file"),
        ("gone/away.json", None, "no such file"),
        ("zero.json", b"", "holds no rows"),
        ("zero.jsonl", b"\n\n", "holds no rows"),
        ("zero.parquet", b"", "not a readable parquet"),
        ("broken.parquet", b"PAR1 nothing of the kind", "not a readable parquet"),
        ("broken.json", b'[{"problem": ', "not valid JSON"),
        ("broken.jsonl", b'{"problem": "q", "answer": 1}\n{"problem"', "line 2 is not valid JSON"),
        ("deep.json", b"[" * 100_000, "not valid JSON"),
        ("latin.json", b"[\xff]", "cannot be read"),
        ("table.csv", b"problem,answer\n1,2\n", r"cannot read \.csv, want .*\.jsonl"),
    ],
)
def test_bad_files_get_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name + ".*" + message) as caught:
        data.load_problems(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_directory_is_not_a_file(tmp_path):
    with pytest.raises(ValueError, match="is a directory"):
        data.load_problems(str(tmp_path))


# ---------------------------------------------------------------------------------------------------- Hub


class FakeSet(list):
    def to_list(self):
        return list(self)


def test_hub_names_config_and_split():
    asked = []

    def load(*args, **kwargs):
        asked.append((*args, kwargs["split"]))
        return FakeSet(PLAIN)

    for spec, split in [("deepscaler", "test"), ("gsm8k", "train"), ("a/b", "dev"), ("a/b:c@d", "train")]:
        rows, _ = data.hub_rows(spec, split, load)
        assert rows == PLAIN
    assert asked == [
        ("agentica-org/DeepScaleR-Preview-Dataset", None, "train"),
        ("openai/gsm8k", "main", "test"),
        ("a/b", None, "dev"),
        ("a/b", "c", "d"),
    ]


def test_failed_hub_load_says_what_was_tried():
    def load(*args, **kwargs):
        raise ConnectionError("no\nroute to host")

    with pytest.raises(ValueError, match="agentica-org/DeepScaleR-Preview-Dataset, split train .*no route") as caught:
        data.hub_rows("deepscaler", "train", load)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec, hint",
    [
        ("deepscalr", "deepscaler"),
        ("olympiadbench", "olympiad_bench"),
        ("arithmetics", "arithmetic"),
        ("qqq", "known names"),
    ],
)
def test_unknown_name_gets_the_nearest_ones(spec, hint):
    with pytest.raises(ValueError, match=f"unknown data set '{spec}': .*{hint}"):
        data.load_problems(spec)


def test_arithmetic(monkeypatch):
    def problems(n, *, split, seed):
        return [(f"{split} {seed} {i}", i, i % 3) for i in range(n)]

    monkeypatch.setattr(arithmetic, "problems", problems)
    last = data.load_problems("arithmetic", split="test", n=5)[4]
    assert last == Problem("test 0 4", 4, "arithmetic/level-1", 4)
    assert len(data.load_problems("arithmetic", split="test")) >= 512
    with pytest.raises(ValueError, match="no split 'dev'"):
        data.load_problems("arithmetic", split="dev")


# ---------------------------------------------------------------------------------------------------- prompts

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}U{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}A{% endif %}"
)


def tokenizer(adds_bos=True, template=TEMPLATE):
    vocab = {"<s>": 0, "?": 1} | {chr(c): i for i, c in enumerate(range(32, 127), start=2) if chr(c) != "?"}
    core = Tokenizer(models.WordLevel(vocab, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", unk_token="?", chat_template=template)


def encode(texts, tok, **kwargs):
    problems = [Problem(t, 1, "s", i) for i, t in enumerate(texts)]
    return data.encode_prompts(problems, tok, **{"max_tokens": 100, **kwargs})


def test_template_then_tokenise_and_never_two_bos():
    tok = tokenizer()
    assert tok("x")["input_ids"][0] == 0  # asked plainly, this tokenizer adds the BOS its template already holds
    _, (ids,), dropped = encode(["1+1"], tok)
    assert tok.decode(ids).replace(" ", "") == "<s>U1+1A" and ids.count(0) == 1 and dropped == 0
    stubborn = tokenizer(template="{{ bos_token }}" + TEMPLATE)
    assert encode(["1+1"], stubborn)[1] == [ids]


def test_plain_prompt_keeps_the_tokenizers_own_bos():
    _, (ids,), _ = encode(["1+1"], tokenizer(template=None), template=False)
    assert ids[0] == 0 and len(ids) == 4
    assert encode(["<s>1+1"], tokenizer(), template=False)[1] == [ids]
    assert encode(["1+1"], tokenizer(adds_bos=False), template=False)[1] == [ids[1:]]


def test_missing_or_refusing_template_is_one_clear_line():
    with pytest.raises(ValueError, match="no chat template: pass --no-template"):
        encode(["1"], tokenizer(template=None))
    with pytest.raises(ValueError, match="refuses .*system first"):
        encode(["1"], tokenizer(template="{{ raise_exception('system first') }}"))


def test_suffix_once():
    tok = tokenizer()
    texts = [tok.decode(ids).replace(" ", "") for ids in encode(["q", "q in a box"], tok, suffix="in a box")[1]]
    assert texts == ["<s>UqinaboxA"] * 2
    with_space, without = encode(["q", "q in a box"], tok, suffix=" in a box")[1]
    assert with_space == without


def test_long_prompts_are_dropped_and_counted():
    kept, ids, dropped = encode(["1" * k for k in (2, 9, 3, 8)], tokenizer(), max_tokens=6)
    assert [p.index for p in kept] == [0, 2] and [len(i) for i in ids] == [5, 6] and dropped == 2
    with pytest.raises(ValueError, match="none of 1 prompts fits in 4 tokens, the shortest has 5"):
        encode(["11"], tokenizer(), max_tokens=4)
    with pytest.raises(ValueError, match="no problems"):
        encode([], tokenizer())


# ---------------------------------------------------------------------------------------------------- batches


@given(seed=st.integers(0, 9), n=st.integers(1, 40), batch=st.integers(1, 40), epoch=st.integers(0, 5))
@settings(deadline=None)
def test_an_epoch_sees_no_problem_twice_and_drops_only_the_remainder(seed, n, batch, epoch):
    if batch > n:
        with pytest.raises(ValueError, match=f"batch of {batch} .* {n} problems"):
            data.batch_indices(seed, 0, n, batch)
        return
    steps = n // batch
    seen = np.concatenate([data.batch_indices(seed, epoch * steps + s, n, batch) for s in range(steps)])
    assert len(set(seen.tolist())) == len(seen) == steps * batch and set(seen.tolist()) <= set(range(n))


def test_batches_are_a_function_of_seed_and_step():
    first = [data.batch_indices(1, step, 1000, 50).tolist() for step in (0, 7, 20, 21)]
    again = [data.batch_indices(1, step, 1000, 50).tolist() for step in (21, 20, 7, 0)]
    assert first == again[::-1]  # no hidden state: a resumed run asks in any order
    assert first[0] != first[2]  # the second epoch has its own order
    assert data.batch_indices(2, 0, 1000, 50).tolist() != first[0]


# ------------------------------------------------------------------------------------------------ as users bring them


@pytest.mark.parametrize("column", ["problem", "answer", "list"])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_half_a_character_is_refused_where_it_is_read(tmp_path, suffix, column):
    bad = {"problem": "ok" + "\ud800" * (column == "problem"), "answer": "2\udfff" if column == "answer" else "2"}
    if column == "list":
        bad["answer"] = ["2", "\ud83d"]
    path = write(tmp_path / f"own{suffix}", [*PLAIN, bad])
    with pytest.raises(ValueError, match=rf"own{suffix}: row 2, column '.*half a character"):
        data.load_problems(path)
    with pytest.raises(ValueError, match="--suffix: .*half a character"):
        encode(["q"], tokenizer(), suffix="in a box \udc80")


def test_whole_characters_beyond_the_basic_plane_are_kept(tmp_path):
    path = write(tmp_path / "own.jsonl", [{"problem": "1 + 1 = \U0001d7da?", "answer": "\U0001d7da"}])  # a pair in JSON
    assert data.load_problems(path)[0].prompt == "1 + 1 = \U0001d7da?"


@pytest.mark.parametrize("name", ["big.json", "big.jsonl"])
def test_a_number_too_long_to_read_names_its_file(tmp_path, name):
    text = '{"problem": "q", "answer": ' + "9" * 5001 + "}"
    (tmp_path / name).write_text(f"[{text}]" if name.endswith("json") else PLAIN_LINE + text)
    with pytest.raises(ValueError, match=name + (".*4300" if name.endswith("json") else ": line 2 .*4300")):
        data.load_problems(str(tmp_path / name))


PLAIN_LINE = json.dumps(PLAIN[0]) + "\n"


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.list_(pa.float32()),
                                  pa.struct([("ground_truth", pa.float32())])])  # fmt: skip
def test_a_short_float_is_the_number_it_was_written_as(tmp_path, kind):
    column, value = "answer", 0.1
    if pa.types.is_struct(kind):
        column, value = "reward_model", {"ground_truth": 0.1}
    values = [[value] if pa.types.is_list(kind) else value] * 2
    values = [np.float16(v) for v in values] if kind == pa.float16() else values
    table = pa.table({"question": ["a", "b"], column: pa.array(values, kind), "unused": ["x", "y"]})
    pq.write_table(table, tmp_path / "f.parquet")
    (first, _) = data.load_problems(str(tmp_path / "f.parquet"))
    assert first.truth == ([0.1] if pa.types.is_list(kind) else 0.1)


def test_numpys_short_floats_likewise():
    rows = [{"problem": "q", "answer": np.float32(0.1)}, {"problem": "q", "answer": np.array([0.3], np.float32)}]
    assert [p.truth for p in data.rows_to_problems(rows, "s", "w")] == [0.1, [0.3]]


def test_a_chat_written_as_text_is_read_as_a_chat_or_refused():
    chat = json.dumps([{"role": "user", "content": "1 + 1?"}])
    row = {"prompt": chat, "reward_model": {"ground_truth": 2}}
    assert data.rows_to_problems([row], "s", "w")[0].prompt == "1 + 1?"
    one = row | {"prompt": '{"content": "2 + 2?", "role": "user"}'}
    assert data.rows_to_problems([one], "s", "w")[0].prompt == "2 + 2?"
    for text in (str([{"role": "user", "content": "1 + 1?"}]), chat[:-1], chat.replace("user", "system")):
        with pytest.raises(ValueError, match="w: row 0, column 'prompt': "):
            data.rows_to_problems([row | {"prompt": text}], "s", "w")


def test_a_name_of_the_hub_is_not_the_folder_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "math").mkdir()
    monkeypatch.setattr(data, "hub_rows", lambda spec, split: (PLAIN, spec))
    assert data.load_problems("math")[0].source == "math"
    with pytest.raises(ValueError, match="is a directory"):
        data.load_problems("./math")


def test_a_file_whose_name_is_no_text_gives_a_source_that_is(tmp_path):
    path = tmp_path / b"own\xff.jsonl".decode("utf-8", "surrogateescape")
    path.write_text(PLAIN_LINE)
    data.load_problems(str(path))[0].source.encode()


@pytest.mark.parametrize("template", ["Hello!", "{{ messages[0]['content'][0] }}", "{{ messages | length }}"])
def test_a_template_that_drops_the_question_is_refused(template):
    with pytest.raises(ValueError, match="leaves the question out"):
        encode(["1+1"], tokenizer(template=template))


def test_half_a_character_in_a_template_is_refused():
    with pytest.raises(ValueError, match="the template of .* half a character"):
        encode(["1+1"], tokenizer(template=TEMPLATE + "{{ '\\ud800' }}"))


@pytest.mark.parametrize("template", ["{{ messages[0]['content'] + 1 }}", "{% if %}", "{{ 1 / 0 }}", "{{ nope.x.y }}"])
def test_a_template_that_fails_is_one_line(template):
    with pytest.raises(ValueError, match="chat template of .* refuses a single user message") as caught:
        encode(["1+1"], tokenizer(template=template))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dated", ["{{ strftime_now('%d %b %Y') }}", "{% set d = strftime_now('%d %b %Y') %}{{ d }}"])
def test_a_template_tells_the_date_it_is_given(dated):
    tok, now = tokenizer(template=dated + TEMPLATE), datetime(2001, 2, 3)
    (text,) = (tok.decode(ids).replace(" ", "") for ids in encode(["1+1"], tok, now=now)[1])
    assert text.startswith("03Feb2001")
    assert encode(["1+1"], tok)[1] != encode(["1+1"], tok, now=now)[1]


def test_a_fingerprint_is_of_questions_truths_and_order():
    rows = [{"problem": f"q{i}", "answer": i} for i in range(5)]

    def of(rows):
        return data.fingerprint(data.rows_to_problems(rows, "s", "w"))

    others = [rows[::-1], rows[:4], rows[1:], [*rows, rows[0]], [rows[1], rows[0], *rows[2:]]]
    others += [[rows[0] | {"answer": 7}, *rows[1:]], [rows[0] | {"problem": "q"}, *rows[1:]]]
    problems = data.rows_to_problems(rows, "s", "w")
    assert data.fingerprint([dataclasses.replace(problems[0], grader="knights"), *problems[1:]]) != of(rows)
    assert of(rows) == of([dict(row) for row in rows]) and len({of(rows), *map(of, others)}) == 1 + len(others)


def test_questions_asked_twice_are_counted():
    problems = data.rows_to_problems([*PLAIN, PLAIN[0], PLAIN[0] | {"answer": 3}], "s", "w")
    assert data.duplicates(problems) == 2


def test_prompts_in_parts_are_the_prompts(monkeypatch):
    texts = [f"{i}+{i}" for i in range(25)]
    whole = encode(texts, tokenizer(), suffix="box", max_tokens=10)
    monkeypatch.setattr(data, "BATCH", 4)
    assert encode(texts, tokenizer(), suffix="box", max_tokens=10) == whole

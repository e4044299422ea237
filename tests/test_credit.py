"""credit.py: the paper's Figure 1 as published numbers, saved responses as their run weighed them, the table's look."""

import io
import json
import math

import pytest
import torch
from rich.console import Console

from experiments import credit
from minidrpo.methods import table as methods

close = torch.testing.assert_close


def shown(groups, width=400):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    credit.show(groups, console)
    return console.file.getvalue()


def near(column, expected):
    """To the digits that were written down; the lengths are whole tokens, which moves the fourth."""
    close(column, torch.tensor([expected], dtype=torch.float64), atol=6e-4, rtol=0)


def test_figure_1_in_every_convention():
    table = credit.credit_table(credit.figure_1())
    near(table["grpo popul."], [1, 1, 1, -1, -1, -1])
    near(table["grpo sample"], [0.9129] * 3 + [-0.9129] * 3)
    near(table["grpo-lp popul."], [1.5793, 1.1471, -0.1829, -0.8478, -0.8478, -0.8478])
    near(table["grpo-lp sample"], [1.4417, 1.0471, -0.1669, -0.7740, -0.7740, -0.7740])
    near(table["disco"], [2, 2, 2, -2, -2, -2])
    weights = [math.exp(r / 0.1) for r in (0.73, 0.6, 0.2)]
    near(table["drpo"], [6 * w / sum(weights) for w in weights] + [-2] * 3)
    # RLOO-LP's own alpha, .2, not the figure's 1: lengths 2212, 3277, 6554, reward 1 - .2 sigmoid(z)
    z = [(n - 4014.33) / 1847.59 for n in (2212, 3277, 6554)]
    rewards = [1 - 0.2 / (1 + math.exp(-x)) for x in z] + [0] * 3
    near(table["rloo-lp"], [r - (sum(rewards) - r) / 5 for r in rewards])
    assert set(name.split()[0] for name in table) == {
        m for m in methods.METHODS if not m.startswith(("grpo-lp-", "grpo-sum-")) and m != "drpo-solved"
    }


def test_the_conventions_table_says_why_no_single_one_gives_both_numbers():
    console = Console(file=io.StringIO(), width=120, color_system=None)
    credit.show_conventions(console)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    plain, penalised = (words for words in lines if words[:1] in (["1"], ["0.73"]))
    assert plain == "1 1 1 0 0 0 +1.00 +0.91 +0.50 +0.60".split()
    assert penalised == "0.73 0.6 0.2 0 0 0 -0.18! -0.17! -0.055! -0.066!".split()
    assert "No single convention gives both" in " ".join(console.file.getvalue().split())


def test_correct_responses_that_are_pushed_down_are_marked_also_without_colours():
    text = shown(credit.figure_1())
    third = next(line for line in text.splitlines() if "6,554" in line)
    assert "-0.17!" in third and "-0.18!" in third and "+0.023 " in third
    assert (
        text.count("-0.17!") == 1 and "of 3 correct responses pushed down: grpo-lp sample 1, grpo-lp popul. 1" in text
    )
    assert "drpo 1" not in text and "alpha 1 for grpo-lp" in text
    console = Console(file=io.StringIO(), width=400, force_terminal=True, color_system="standard")
    credit.show(credit.figure_1(), console)
    assert "\x1b[1;31m-0.17!" in console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_gets_the_columns_in_parts(width):
    text = shown(credit.figure_1(), width)
    assert max(map(len, text.splitlines())) <= width
    wide = shown(credit.figure_1())
    assert sorted(w for w in text.split() if w[0] in "+-") == sorted(w for w in wide.split() if w[0] in "+-")


# --------------------------------------------------------------------------------------------------- saved responses

GROUPS = {  # (step, index): [(correct, length, logp)]
    (1, 7): [(True, 40, -0.3), (True, 90, -0.4), (False, 60, -0.2), (False, 30, -0.9)],
    (1, 8): [(False, 40, -0.3), (True, 20, -0.4), (False, 60, -0.2), (False, 30, -0.9)],
    (2, 7): [(True, 50, -0.3), (True, 80, -0.1), (False, 60, -0.1), (False, 30, -3.0)],
    (2, 9): [(True, 50, -0.3), (True, 80, -0.1), (True, 60, -0.2), (True, 30, -1.0)],
}


@pytest.fixture
def samples(tmp_path):
    records = [
        {
            "step": step,
            "source": "set",
            "index": index,
            "prompt": "?",
            "response": "wait",
            "correct": c,
            "length": n,
            "logp": logp,
        }
        for (step, index), group in GROUPS.items()
        for c, n, logp in group
    ]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    settings = {
        "max_response_tokens": 100,
        "lam": "inf",
        "alpha": 0.5,
        "tau": 0.2,
        "rewards": ["correct", "length"],
        "length_limit": 55,
        "about": {"torch": "x"},
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return path


def test_saved_responses_are_weighed_with_their_runs_settings(samples):
    groups = credit.read_groups(str(samples))
    assert groups.cfg().lam == math.inf and groups.cfg("gdpo").rewards == ("correct", "length")  # JSON has neither
    assert groups.batch.length_PG.tolist() == [[50, 80, 60, 30]] * 2
    table = credit.credit_table(groups)
    share = torch.tensor([-0.1, -3.0]).div(0.2).softmax(0).tolist()  # tau of the run: the likelier is pushed harder
    close(table["drpo"][0], torch.tensor([2, 2, -4 * share[0], -4 * share[1]]).double(), rtol=1e-5, atol=1e-6)
    assert (table["drpo"][1] == 0).all()  # nothing is wrong there
    reward = torch.tensor([1 - 0.5 * 0.5, 1 - 0.5 * 0.8, 0, 0], dtype=torch.float64)
    close(table["grpo-lp sample"][0], (reward - reward.mean()) / (reward.std() + 1e-6), rtol=1e-5, atol=1e-6)
    assert credit.read_groups(str(samples), lam=0.1).cfg().lam == 0.1


def test_hapos_record_is_from_the_earlier_steps_of_the_file(samples):
    """Problem 7's shortest correct response was 40 in step 1; problem 9 is new: its own shortest, 30."""
    table = credit.credit_table(credit.read_groups(str(samples)))

    def rewards(group, record):
        f = [math.cos(min(math.pi / 2 * n / record, math.pi)) for _, n, _ in group]
        return [c + (max(x, -0.7) if c else min(x, 0)) for (c, _, _), x in zip(group, f, strict=True)]

    reward = torch.tensor([rewards(GROUPS[2, 7], 40), rewards(GROUPS[2, 9], 30)], dtype=torch.float64)
    expected = (reward - reward.mean(-1, keepdim=True)) / (reward.std(-1, keepdim=True) + 1e-6)
    close(table["hapo"], expected, rtol=1e-4, atol=1e-5)


def test_step_and_problem_choose(samples):
    first = credit.read_groups(str(samples), step=1, problem=1)
    assert first.batch.length_PG.tolist() == [[40, 20, 60, 30]] and first.earlier == []
    second = credit.read_groups(str(samples), step=2, problem=0)
    both = credit.credit_table(credit.read_groups(str(samples), step=2))
    close(credit.credit_table(second)["hapo"][0], both["hapo"][0])
    assert "60" in shown(second) and "set" not in shown(second).split()


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--step=5"], "holds no step 5, its steps are 1 to 2"),
        (["--problem=2"], "--problem 2: step 2 has groups 0 to 1"),
        (["--lam=0"], "--lam must be at least 1e-06"),
    ],
)
def test_mistakes_are_one_line(samples, argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        credit.main([f"--samples={samples}", *argv])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and words in err and err.count("\n") == 1


ROW = {"step": 2, "source": "set", "index": 7, "prompt": "?", "correct": True, "length": 3}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"step": "two"}, "line 1: step is 'two', not a whole number"),
        ({"step": None}, "line 1: step is None, not a whole number"),
        ({"correct": "no"}, "line 1: correct must be true or false, got 'no'"),
        ({"length": 0}, "line 1: length must be 1 or more, got 0"),
        ({"length": 2**40}, "line 1: length must be 1 or more, got"),
        ({"length": True}, "line 1: length must be 1 or more, got True"),
        ({"logp": math.nan}, "line 1: logp must be a number, got nan"),
        ({"logp": None}, "line 1: logp must be a number, got None"),
        ({"response": 7}, "line 1: response must be a text, got 7"),
        ({"index": [7], "prompt": {}}, None),  # unusual, but a name for a group
        ({"logp": -1}, None),
    ],
)
def test_a_line_with_a_wrong_value_is_named(change, words, tmp_path, capsys):
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(ROW | change) + "\n" for _ in range(3)))
    if words is None:
        return credit.main([f"--samples={path}"])
    with pytest.raises(SystemExit) as stop:
        credit.main([f"--samples={path}"])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and words in err and err.count("\n") == 1


def test_steps_of_other_group_sizes_and_settings_of_other_tables(samples, tmp_path):
    with samples.open("a") as file:
        file.writelines(json.dumps(ROW | {"step": 3}) + "\n" for _ in range(3))
    with pytest.raises(ValueError, match="groups of step 3 have different numbers of responses, or others than before"):
        credit.read_groups(samples)
    odd = {"preference": "lines"}, {"rewards": ["lines"]}, {"rewards": "correct"}, {"lam": [1]}, {"l1_prompt": "no"}
    for settings in (*odd, {"max_response_tokens": 1.5}):
        (tmp_path / "config.json").write_text(json.dumps(settings))
        with pytest.raises(ValueError, match="config.json: not the settings of a run: --.* must be "):
            credit.read_groups(samples, step=2)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ValueError, match="config.json: not the settings of a run"):
        credit.read_groups(samples, step=2)


@pytest.mark.parametrize(
    "name, words",
    [("none/a.png", "no such directory"), ("a.xyz", "not supported"), ("", "is a directory"), ("f/a", "no such dir")],
)
def test_a_picture_that_cannot_be_saved(name, words, tmp_path, capsys):
    """Said before the table is computed and shown."""
    (tmp_path / "f").write_text("")
    with pytest.raises(SystemExit) as stop:
        credit.main([f"--plot={tmp_path / name}"])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and words in err and err.count("\n") == 1 and out == ""


def test_a_wrong_setting_is_said_before_anything_else(capsys):
    with pytest.raises(SystemExit) as stop:
        credit.main(["--lam=0"])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and err == "error: --lam must be at least 1e-06, got 0.0\n" and out == ""


def test_the_picture_named_is_the_picture_written(tmp_path, monkeypatch, capsys):
    """Without an ending it is a .png, and the last line says so."""
    drawn = []
    monkeypatch.setattr(credit, "plot", lambda groups, out: drawn.append(str(out)))
    for name, written in (("a", "a.png"), ("b.SVG", None), ("c.pdf", "c.pdf"), ("[bold]", "[bold].png")):
        if written:
            credit.main([f"--plot={tmp_path / name}"])
            assert drawn.pop() == str(tmp_path / written)
            assert capsys.readouterr().out.replace("\n", "").endswith(str(tmp_path / written))
        else:
            with pytest.raises(ValueError, match=".SVG is not supported"):
                credit.file_to_draw(name)


def test_samples_that_are_a_directory_or_nested_too_deep(tmp_path, capsys):
    (tmp_path / "deep.jsonl").write_text('{"step": ' + "[" * 10**5 + "\n")
    for path, words in ((tmp_path, "is a directory, not a file"), (tmp_path / "deep.jsonl", ", line 1: ")):
        with pytest.raises(SystemExit) as stop:
            credit.main([f"--samples={path}"])
        err = capsys.readouterr().err
        assert stop.value.code == 2 and f"{path}{'' if words[0] == ',' else ' '}{words}" in err and err.count("\n") == 1


def test_heads_are_whole_words(tmp_path):
    """But for one that no column of eight letters holds."""
    broken = [line for line in map(credit._lines, credit.credit_table(credit.figure_1())) if "-\n" in line]
    assert broken == ["shorter-\nbetter"]
    (ax,) = credit.plot(credit.figure_1(), tmp_path / "credit.png").axes
    assert [t.get_text() for t in ax.get_xticklabels()] == list(credit.credit_table(credit.figure_1()))


def test_files_that_are_no_samples(samples, tmp_path):
    with pytest.raises(ValueError, match="none.jsonl: no such file"):
        credit.read_groups(tmp_path / "none.jsonl")
    with samples.open("a") as file:
        file.write('{"step": 2, "source": "set", "index": 7, "prompt": "?", "correct": true, "length": 3}\n')
    with pytest.raises(ValueError, match="groups of step 2 have different numbers"):
        credit.read_groups(samples)
    with samples.open("a") as file:
        file.write('{"step": 1, "accuracy": 0.5}\n')
    with pytest.raises(ValueError, match="line 18 has no correct or no length"):
        credit.read_groups(samples)
    (tmp_path / "config.json").write_text('{"lam": "small"}')
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:8]))
    with pytest.raises(ValueError, match="config.json: not the settings of a run"):
        credit.read_groups(samples)
    with pytest.raises(SystemExit):
        credit.main(["--step=3"])


def test_the_picture_shows_the_table(samples, tmp_path, capsys):
    out = tmp_path / "credit.png"
    credit.main(["--plot", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG") and "single convention" in capsys.readouterr().out
    groups = credit.read_groups(str(samples))
    fig = credit.plot(groups, out)
    table, (ax,) = credit.credit_table(groups), fig.axes
    values = torch.stack([column.flatten() for column in table.values()], 1)
    close(torch.tensor(ax.images[0].get_array().tolist(), dtype=torch.float64), values)
    pushed = sum(int(credit.negative_though_correct(c, groups.batch.correct_PG).sum()) for c in table.values())
    assert len(ax.patches) == pushed > 0 and sum("!" in t.get_text() for t in ax.texts) == pushed
    assert [t.get_text() for t in ax.get_yticklabels()][:2] == ["correct, 50", "correct, 80"]

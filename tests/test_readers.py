"""Nothing that is read is executed or unpickled: every call that reads is found in the source, and each kind of reader
is given payloads. And what is no file (a FIFO, a device, a socket, a directory) is said in one line, without waiting.
"""

import ast
import functools
import json
import os
import pickle
import shutil
import socket
from pathlib import Path

import pytest

import config
import reward
from conftest import ROOT, make_small_model
from experiments import credit, study, study_plots, thinking_tables
from minidrpo import files
from minidrpo.engine import loading, memory
from minidrpo.engine.distributed import DistContext
from minidrpo.rundir import checkpoint, jsonl, results
from minidrpo.rundir.log import RunLog
from minidrpo.show import html_report, tables
from minidrpo.tasks import data

# ---------------------------------------------------------------------------------------------------- the source

BUILT_IN = {"eval", "exec", "compile", "__import__"}
RUNS_CODE = {  # functions of libraries that can run what they read
    "import_module", "run_path", "run_module", "system", "popen", "sympify", "parse_expr", "parse_latex", "lambdify",
    "Unpickler", "read_pickle", "unsafe_load", "full_load", "FileSystemReader", "literal_eval", "load", "loads",
}  # fmt: skip
HARMLESS = {  # (file, call): why it is none of them
    ("experiments/benchmarks/logprob_memory.py", "torch.load"): "its own file, and weights_only is the default",
    ("minidrpo/grader/prover.py", "pickle.load"): "our own trees, from our own parent, through its pipe",
    ("minidrpo/rundir/track.py", "importlib.import_module"): "one of the names that --track knows",
    ("minidrpo/tasks/data.py", "load"): "datasets.load_dataset, which runs no scripts since its version 4",
    ("minidrpo/engine/shard.py", "dcp.load"): "with HuggingFaceStorageReader: safetensors",
}
READERS = {  # what reads a file: the payloads that it gets below
    "from_pretrained": "a model directory",
    "from_file": "a model directory",
    "cached_file": "a model directory",
    "LLM": "a model directory",  # trust_remote_code, as for the others; vLLM is not on every machine
    "HuggingFaceStorageReader": "a checkpoint",
    "load_file": "a checkpoint",
    "safe_open": "a checkpoint",
    "read_json": "any other file",
    "read_text": "any other file",
    "read_csv": "any other file",
    "read_table": "any other file",
    "open": "any other file",
}
OTHERS = {  # which nobody needs here; whoever does adds it to READERS, and its payloads
    "read_bytes", "memmap", "fromfile", "loadtxt", "genfromtxt", "read_excel", "read_hdf", "read_feather", "fdopen",
    "from_json", "from_yaml", "safe_load", "ParquetFile", "from_disk", "load_from_disk", "deserialize", "from_buffer",
}  # fmt: skip


@functools.cache
def calls():
    """(file, dotted name of what is called, its last part, the call) of all the code that users run."""
    found = []
    for path in [*ROOT.glob("*.py"), *(ROOT / "minidrpo").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                found.append((str(path.relative_to(ROOT)), name, name.rpartition(".")[2], node))
    return found


def test_no_call_in_the_source_runs_what_it_reads():
    found = {(file, name) for file, name, last, _ in calls() if name in BUILT_IN or last in RUNS_CODE}
    assert {call for call in found if not call[1].startswith("json.")} == HARMLESS.keys()


def test_every_reader_of_the_source_is_known():
    found = {last for file, _, last, _ in calls() if "benchmarks" not in file}
    assert READERS.keys() <= found and not OTHERS & found


def test_remote_code_is_off_unless_asked_for():
    said = {(word.arg, ast.unparse(word.value)) for *_, call in calls() for word in call.keywords}
    asked = {value for name, value in said if name == "trust_remote_code"}
    assert asked == {"trust_remote_code", "cfg.trust_remote_code"}


# -------------------------------------------------------------------------------------------------------- payloads


class Payload:
    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def code(mark):
    return f"__import__('os').mkdir({str(mark)!r})"


def said_in_one_line(function, *args):
    """The error's text, if there is one: only ValueError will do."""
    try:
        function(*args)
    except ValueError as error:
        return str(error)
    except SystemExit as stop:
        assert stop.code in (1, 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model directory, and a checkpoint of one step."""
    folder, tiny = tmp_path_factory.mktemp("trained"), ROOT / "minidrpo" / "tiny"
    shutil.copytree(tiny, folder / "model", ignore=lambda at, names: [n for n in names if (Path(at) / n).is_dir()])
    tokenizer, model = loading.load_tokenizer(folder / "model"), make_small_model()
    import torch

    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoint.save(folder / "run", 1, model, tokenizer, optimizer)
    return folder


def as_pickle(path, mark):
    path.write_bytes(pickle.dumps(Payload(mark)))


def changed(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def remote_code(folder, mark):
    (folder / "evil.py").write_text(f"{code(mark)}\nclass Evil: pass\n")
    names = {f"Auto{kind}": "evil.Evil" for kind in ("Config", "Model", "ModelForCausalLM")}
    changed(folder / "config.json", auto_map=names, model_type="evil")
    changed(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})


def remote_class_of_a_known_type(folder, mark):
    (folder / "evil.py").write_text(f"{code(mark)}\nclass Evil: pass\n")
    changed(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"})


def custom_generate(folder, mark):
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(f"{code(mark)}\ndef generate(*a, **k): {code(mark)}\n")
    (folder / "generation_config.json").write_text('{"custom_generate": "custom_generate"}')


def pickled_weights(folder, mark):
    (folder / "model.safetensors").unlink()
    as_pickle(folder / "pytorch_model.bin", mark)


def pickled_adapter(folder, mark):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "evil"}')
    as_pickle(folder / "adapter_model.bin", mark)


def template(folder, mark):
    text = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.mkdir('MARK') }}"
    (folder / "chat_template.jinja").write_text(text.replace("MARK", str(mark)))


def kernel_from_the_hub(folder, mark):
    changed(folder / "config.json", attn_implementation="evil/kernel", _attn_implementation="evil/kernel")


MODELS = {
    "remote code": remote_code,
    "remote class of a known type": remote_class_of_a_known_type,
    "custom generate": custom_generate,
    "pickled weights": pickled_weights,
    "a pickle called safetensors": lambda folder, mark: as_pickle(folder / "model.safetensors", mark),
    "an adapter": pickled_adapter,
    "a template": template,
    "a kernel": kernel_from_the_hub,
    "a pickled tokenizer": lambda folder, mark: as_pickle(folder / "tokenizer.json", mark),
}


@pytest.mark.parametrize("name", MODELS)
def test_payloads_in_a_model_directory(name, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever asks is told to go on
    folder, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(trained / "model", folder)
    MODELS[name](folder, mark)
    problem = data.Problem("1+1=?", "2", "own", 0)

    def prompts():
        return data.encode_prompts([problem], loading.load_tokenizer(folder), max_tokens=99)

    def model():
        return loading.load_model(folder).generate(max_new_tokens=1)

    for reader in (
        prompts, model,
        lambda: loading.load_model(folder, device="meta"),
        lambda: loading.read_config(folder),
        lambda: memory.read_shapes(str(folder)),
        lambda: results.fingerprint(str(folder)),
    ):  # fmt: skip
        said_in_one_line(reader)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["optimizer/*.safetensors", "method.safetensors", "optimizer/.metadata", "more.pt"])
def test_payloads_in_a_checkpoint(name, trained, tmp_path):
    import torch

    shutil.copytree(trained / "run", tmp_path / "run")
    folder, mark = checkpoint.newest(tmp_path / "run"), tmp_path / "mark"
    for path in list((folder / "trainer").glob(name)) or [folder / "trainer" / name]:
        as_pickle(path, mark)
    model = make_small_model()
    said_in_one_line(checkpoint.restore_optimizer, folder, model, torch.optim.AdamW(model.parameters()))
    said_in_one_line(checkpoint.restore_state, folder)
    assert not mark.exists()


JSON_FILES = {  # reader -> the file that it reads in a directory
    "config.json": lambda folder: RunLog(config.make(run_dir=str(folder)), DistContext()),
    "evals.jsonl": lambda folder: RunLog(config.make(run_dir=str(folder)), DistContext()),
    "results.json": lambda folder: (results.read_reference(folder), html_report.collect([folder])),
    "metrics.jsonl": lambda folder: (html_report.collect([folder]), tables.main([str(folder)])),
    "responses.jsonl": lambda folder: results.read_responses(folder),
    "samples.jsonl": lambda folder: credit.read_groups(folder / "samples.jsonl"),
    "study.json": lambda folder: study.claim_directory(study.Study(dir=str(folder))),
    "lr.json": lambda folder: study.chosen(study.Study(dir=str(folder))),
    "data.json": lambda folder: data.read_rows(str(folder / "data.json")),
    "data.jsonl": lambda folder: data.read_rows(str(folder / "data.jsonl")),
    "data.parquet": lambda folder: data.read_rows(str(folder / "data.parquet")),
    "runs.csv": lambda folder: study_plots.read_study(folder / "runs.csv"),
    "cells.csv": lambda folder: thinking_tables.read(folder / "cells.csv"),
}


@pytest.mark.parametrize("name", JSON_FILES)
def test_payloads_in_any_other_file(name, tmp_path, capsys):
    mark = tmp_path / "mark"
    for number, content in enumerate((
        pickle.dumps(Payload(mark)), code(mark).encode(), json.dumps({"step": code(mark)}).encode() + b"\n",
        b"!!python/object/apply:os.mkdir ['MARK']".replace(b"MARK", str(mark).encode()), b"[" * 100_000 + b"\n",
    )):  # fmt: skip
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        said_in_one_line(JSON_FILES[name], folder)
    assert not mark.exists() and "Traceback" not in capsys.readouterr().err


def test_a_pickle_inside_a_parquet_file(tmp_path):
    """Older versions of pyarrow unpickled what an extension type said of itself."""
    import pyarrow
    import pyarrow.parquet

    extension = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Payload(tmp_path / "mark")),
    }
    fields = [pyarrow.field("problem", pyarrow.string(), metadata=extension), pyarrow.field("answer", pyarrow.string())]
    table = pyarrow.table([["1+1=?"], ["2"]], schema=pyarrow.schema(fields))
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    said_in_one_line(data.read_rows, str(tmp_path / "data.parquet"))
    assert not (tmp_path / "mark").exists()


def test_code_in_answers_and_truths(tmp_path):
    words = code(tmp_path / "mark")
    for text in (
        words,
        rf"\text{{{words}}}",
        f"lambda: {words}",
        f"[{words}]",
        f"f'{{{words}}}'",
        rf"\int_0^1 {words} dx",
    ):
        for answer, truth in ((text, "5"), ("5", text), (text, text + "+0"), (text, r"\int_0^1 x dx")):
            reward.grade(rf"</think>\boxed{{{answer}}}", truth)
    assert not (tmp_path / "mark").exists()


# ------------------------------------------------------------------------------------------------------ no files


def make(kind, path):
    """What is no file, under that name; returns what keeps it there."""
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a directory":
        path.mkdir()
    else:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path has room for 100 characters
        try:
            (server := socket.socket(socket.AF_UNIX)).bind(path.name)
            return server
        finally:
            os.chdir(here)


@pytest.mark.parametrize("kind", ["a FIFO", "a device", "a directory", "a socket"])
def test_what_is_no_file_is_said_without_waiting(kind, trained, tmp_path, capsys):
    import torch

    def restored(folder):
        model = make_small_model()
        checkpoint.restore_optimizer(folder, model, torch.optim.AdamW(model.parameters()))
        checkpoint.restore_state(folder)

    inside = {
        "trainer.json": restored, "trainer/method.safetensors": restored,
        "trainer/optimizer/*.safetensors": restored,
        "model.safetensors": loading.load_model, "config.json": loading.load_model,
        "tokenizer.json": loading.load_tokenizer, "tokenizer_config.json": loading.load_tokenizer,
        "generation_config.json": loading.load_model, "chat_template.jinja": loading.load_tokenizer,
    }  # fmt: skip
    for number, (name, reader) in enumerate([*JSON_FILES.items(), *inside.items()]):
        folder = tmp_path / str(number) / "step_1"
        if reader in inside.values():
            shutil.copytree(checkpoint.newest(trained / "run"), folder)
            name = min(path.relative_to(folder) for path in folder.glob(name)) if "*" in name else name
            (folder / name).unlink(missing_ok=True)
        else:
            folder.mkdir(parents=True)
        kept = make(kind, folder / name)
        if kind == "a directory" and reader in inside.values():
            said_in_one_line(reader, folder)  # in Transformers' words, or taken for a file that is not there
            continue
        said = said_in_one_line(reader, folder) or capsys.readouterr().err
        assert kind in said and said.count("\n") <= 1, (name, said)
        del kept


def test_a_nested_file_is_one_line(tmp_path):
    for text, words in (("[" * 100_000, "nested too deep"), ("{", "cannot be read"), ("\xff", "cannot be read")):
        (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=f"x.json .*{words}"):
            files.read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("1" * 5001)
    with pytest.raises(ValueError, match="x.json cannot be read"):
        files.read_json(tmp_path / "x.json")
    assert jsonl.read(tmp_path / "none.jsonl") == []

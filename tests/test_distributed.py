"""DistContext: how a rank that fails alone leaves the others."""

import os

import pytest

from minidrpo.engine import distributed
from minidrpo.engine.distributed import DistContext, shutdown


class Gone(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(("error", "code"), [(SystemExit(3), 3), (ZeroDivisionError("ours"), 1), (SystemExit("no"), 1)])
def test_a_rank_that_fails_does_not_wait_for_the_others(error, code, capsys, monkeypatch):
    """At once: no exit handlers, no process group destroyed (there is none here, so that would be an error)."""
    codes = []

    def leave(code):
        codes.append(code)
        raise Gone

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Gone), shutdown(DistContext(rank=1, size=2)):
        raise error
    traced = "ZeroDivisionError: ours" in capsys.readouterr().err
    assert codes == [code] and traced == isinstance(error, ZeroDivisionError)


def test_alone_an_error_is_an_error():
    with pytest.raises(ZeroDivisionError), shutdown(DistContext()):
        raise ZeroDivisionError


RANK_0 = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "h"}


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 but no RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT: start with torchrun"),
        (RANK_0, "no MASTER_PORT: start"),
        (RANK_0 | {"MASTER_PORT": "abc"}, "MASTER_PORT in the environment must be the number of a port, got 'abc'"),
        ({"WORLD_SIZE": "two"}, "must be whole numbers"),
        ({"WORLD_SIZE": ""}, "must be whole numbers"),
        ({"RANK": "3"}, "rank 3 (LOCAL_RANK 0) of 1 ranks"),
        ({"RANK": "-1"}, "rank -1"),
    ],
)
def test_half_of_torchruns_environment_is_one_line(environment, words, monkeypatch, capsys):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stop:
        distributed.init_distributed()
    err = capsys.readouterr().err
    assert stop.value.code == 2 and words in err and err.count("\n") == 1, err

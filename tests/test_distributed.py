"""DistContext: how a rank that fails alone leaves the others."""

import os

import pytest

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

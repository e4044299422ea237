"""graders.py - the tasks that are not graded by a boxed answer: the table from a grader's name to its module.

`Problem.grader` holds such a name: a built-in task sets it, and so does the column `grader` of a data file. A module
of this table has

    grade(response, truth) -> Grade    of a whole text, <think> included; never an exception, whatever the text is
    SCORES     names of the numbers that each of its grades holds in `scores`, finite ones
    REWARDS    what `gdpo` and `grpo-sum` reward on the built-in task unless --rewards says otherwise: names of SCORES
               or of methods/rewards.py
    read_truth(truth)    optional: ValueError for a text that is no truth; data files are read with it

and, as a built-in task, what data.py asks of every one: problems(n, split=..., seed=...) and SIZES. No torch, no model.
"""

from types import ModuleType

from minidrpo.tasks import knights, programs, tools

GRADERS: dict[str, ModuleType] = {"tools": tools, "programs": programs, "knights": knights}


def scores() -> list[str]:
    """Every name that a grade's `scores` can hold, each once."""
    return list(dict.fromkeys(name for task in GRADERS.values() for name in task.SCORES))

"""grader/ - how reward.py reads an answer and compares two: a small grammar of answers, not of all LaTeX.

    tables.py     the names that answers use: units, functions, relations, brackets
    spelling.py   characters, units and wrappers in one spelling; tokens
    trees.py      what the small trees are
    grammar.py    tokens to trees; the whole text must parse
    evaluate.py   exact fractions and guarded numeric values of trees
    points.py     where two trees are compared
    values.py     are two trees worth the same?
    equality.py   are two trees the same answer? Item by item, then by value
    prover.py     sympy in processes that can be killed

Pure Python with guards on length, depth, magnitude and steps; nothing here evaluates text as code. A file imports only
from those above it.
"""

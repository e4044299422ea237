"""reflection.py - the words with which a model goes back over its own work, counted in a text."""

import re
from collections import Counter

REFLECTION = {  # word: its pattern, read alike by Python and by the browser; no capturing groups inside
    "wait": "wait",
    "alternatively": "alternatively",
    "hmm": "hm+",
    "check": "(?:re)?check(?:s|ed|ing)?",
    "verify": "verif(?:y|ies|ied|ying)",
    "actually": "actually",
    "hold on": "hold on",
    "reconsider": "reconsider",
}
PATTERN = re.compile(rf"\b(?:{'|'.join(f'({p})' for p in REFLECTION.values())})\b", re.IGNORECASE | re.ASCII)


def reflection_words(text: str) -> Counter:
    """How often each kind of reflection word occurs."""
    names = tuple(REFLECTION)
    return Counter(names[m.lastindex - 1] for m in PATTERN.finditer(text))

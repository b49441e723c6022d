"""Words that are exactly one token each, so that chunks and tokens are the same number.

Every word starts with a space: byte-level BPE splits text before it merges, and " word" is a
piece of its own wherever it stands, so the count of a sentence is the sum of its words.
"""

from comptroller.simulator.tokens import count_tokens

_CANDIDATES = """
river stone light water house garden summer winter morning evening yellow green orange silver
gold copper iron wood paper glass bread butter cheese apple lemon sugar salt pepper mountain
valley forest ocean island desert bridge street market window door table chair lamp clock music
song story letter number circle square line point north south east west small large short long
quick slow early late open close high low warm cold bright dark quiet loud simple strong gentle
honest careful ready young old new final common rare walk run jump read write speak listen watch
build carry bring follow lead teach learn measure count compare choose decide begin finish
continue return remember consider expect
"""
# Two and three bytes in one token: what a stream can be split inside of.
_WIDE_CANDIDATES = ("é", "ü", "中", "и", "日")
WORDS_MIN = 64
VOCABULARIES = ("o200k_base", "cl100k_base")


def single_token_words() -> tuple[str, ...]:
    """Choose the words that are one token in every vocabulary.

    Raises RuntimeError when too few are: the tokenizer is not the one this was written for.
    """
    words = tuple(f" {word}" for word in _CANDIDATES.split() if _is_single(f" {word}"))
    if len(words) < WORDS_MIN or not _adds_up(words):
        raise RuntimeError("The tokenizer does not count the simulator's words as one token each.")
    return words


def wide_words() -> tuple[str, ...]:
    """Choose the one-token words that are not ASCII."""
    return tuple(f" {word}" for word in _WIDE_CANDIDATES if _is_single(f" {word}"))


def _is_single(word: str) -> bool:
    return all(count_tokens(vocabulary, word) == 1 for vocabulary in VOCABULARIES)


def _adds_up(words: tuple[str, ...]) -> bool:
    text = "".join(words)
    return all(count_tokens(vocabulary, text) == len(words) for vocabulary in VOCABULARIES)

"""Verifiable tasks: problems by topic and level, their tokenizer and their verifier."""

from llm.tasks.generated import CELLS, MAX_ANSWER, TOPICS, Cell, Problem, cells, draw, pool, split_of, stream
from llm.tasks.tokenizer import CharTokenizer
from llm.tasks.verify import score

__all__ = [
    "CELLS",
    "MAX_ANSWER",
    "TOPICS",
    "Cell",
    "CharTokenizer",
    "Problem",
    "cells",
    "draw",
    "pool",
    "score",
    "split_of",
    "stream",
]

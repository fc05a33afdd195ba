"""Verifiable tasks: generated problems and data sets by topic and level, tokenizer, verifiers."""

from llm.tasks.base import Cell, Problem
from llm.tasks.generated import CELLS, MAX_ANSWER, TOPICS, cells, draw, pool, stream
from llm.tasks.splits import SPLITS, key_of, split_of
from llm.tasks.tokenizer import CharTokenizer
from llm.tasks.verifiers import Verifier, make_verifier, score
from llm.tasks.word_problems import load as load_problems

__all__ = [
    "CELLS",
    "MAX_ANSWER",
    "SPLITS",
    "TOPICS",
    "Cell",
    "CharTokenizer",
    "Problem",
    "Verifier",
    "cells",
    "draw",
    "key_of",
    "load_problems",
    "make_verifier",
    "pool",
    "score",
    "split_of",
    "stream",
]

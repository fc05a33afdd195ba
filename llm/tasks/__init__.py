"""Verifiable tasks: generated problems and data sets by topic and level, tokenizer, verifiers."""

from llm.tasks.base import Cell, Problem
from llm.tasks.family import Family, compared_text, family, has_many, module_of, names
from llm.tasks.generated import (
    CELLS,
    MAX_ANSWER,
    TOPICS,
    cells,
    draw,
    is_generated,
    longer_cells,
    longest_answer,
    pool,
    stream,
    traced,
    worked,
)
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
    "Family",
    "Problem",
    "Verifier",
    "cells",
    "compared_text",
    "draw",
    "family",
    "has_many",
    "is_generated",
    "key_of",
    "load_problems",
    "longer_cells",
    "longest_answer",
    "make_verifier",
    "module_of",
    "names",
    "pool",
    "score",
    "split_of",
    "stream",
    "traced",
    "worked",
]

"""reasoning-gym through its adapter: problems, verdicts and refusals; where the library is, an evaluation too."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError
from llm import evaluate
from llm.run import verifier_of
from llm.settings import Settings
from llm.tasks import load_problems, make_verifier
from llm_toys import save_model


def test_it_is_imported_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards an optional library: nothing here loads it, and without it there is one line with the remedy."""
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(InputError, match="pip install reasoning-gym"):
        load_problems("reasoning_gym:countdown")
    with pytest.raises((InputError, ValueError)):  # find_spec of a name that is blocked raises by itself
        make_verifier("reasoning_gym")
    assert load_problems("sample")


def test_verdicts_are_the_librarys() -> None:
    """Guards the adapter: the library's own answers are right, bare and in a box, with working before it; others are
    not; another seed gives other problems."""
    gym = pytest.importorskip("reasoning_gym")
    source = "reasoning_gym:basic_arithmetic:size=12,seed=3,max_terms=3"
    problems = load_problems(source, instruction="")
    entries = list(gym.create_dataset("basic_arithmetic", size=12, seed=3, max_terms=3))
    assert [p.prompt for p in problems] == list(dict.fromkeys(e["question"].strip() for e in entries))
    golds = {e["question"].strip(): e["answer"] for e in entries}
    right = [golds[p.prompt] for p in problems]
    settings = Settings(model="any", dataset=source, verifier_workers=1, verifier_seconds=60.0)
    with verifier_of(settings) as verifier:
        for form in ("{}", "first 1, then \\boxed{{{}}}", "\\boxed{{0}} no: \\boxed{{ {} }}"):
            assert verifier.scores([form.format(x) for x in right], problems) == [1.0] * len(problems)
        for form in ("{}1", "{} or so", "\\boxed{{{}", "\\boxed{{}}"):
            assert verifier.scores([form.format(x) for x in right], problems) == [0.0] * len(problems)
        moved = json.loads(problems[0].answer)
        changed = problems[0]._replace(answer=json.dumps([*moved[:3], "0" * 16]))
        assert verifier.scores([right[0]], [changed]) == [0.0] and verifier.failures["raised"] == 1
    assert {p.prompt for p in load_problems(source.replace("seed=3", "seed=4"), instruction="")} != set(golds)


def test_names_and_settings_that_are_none() -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(InputError, match="did you mean 'countdown'"):
        load_problems("reasoning_gym:countdwn")
    with pytest.raises(InputError, match="reasoning-gym refuses"):
        load_problems("reasoning_gym:countdown:no_such_setting=3")


def test_an_evaluation(tmp_path: Path) -> None:
    """Guards the whole path with a model by folder: problems, worker, files."""
    pytest.importorskip("reasoning_gym")
    argv = [str(save_model(tmp_path / "model")), "--dataset", "reasoning_gym:basic_arithmetic:size=3", "--samples", "2"]
    evaluate.main([*argv, "--max-new", "3", "--out", str(tmp_path / "out")])
    rows = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and {row["cluster"] for row in rows} == {"basic_arithmetic"}

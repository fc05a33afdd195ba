"""Methods as text: the grammar, what it refuses, and that the same text trains on two rungs."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpo_sim import InputError, registry, rungs
from ebpo_sim.chains.population import skill_chain
from ebpo_sim.chains.rung import TrainingConfig, advance, learner_of, resume, start, train
from ebpo_sim.estimators import make
from ebpo_sim.estimators import names as estimator_names
from ebpo_sim.groups import group_rewards
from ebpo_sim.methods.__main__ import main as methods_main
from ebpo_sim.methods.checkpoint import load_state
from ebpo_sim.methods.method import estimator_of, parse_method
from ebpo_sim.methods.recipes import RECIPES
from ebpo_sim.methods.step import decide
from ebpo_sim.methods.step import start as begin
from ebpo_sim.methods.table import capabilities
from ebpo_sim.objectives import (
    CISPO,
    GSPO,
    KL,
    OBJECTIVES,
    Aggregation,
    Clip,
    make_objective,
    objective_names,
    register_objective,
)
from ebpo_sim.sampling import Ask, Dynamic, Order

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed


def test_a_method_is_its_parts() -> None:
    method = parse_method("ebpo_debiased:memory=0.95 + cispo:high=0.3 + kl:coef=0.01,kind=k2", None, rungs.CHAINS)
    assert method.estimator == make("ebpo_debiased:memory=0.95")
    assert method.objectives == (CISPO(high=0.3), KL(0.01, "k2"))
    assert parse_method("grpo", None, rungs.LANGUAGE_MODEL).objectives == ()
    assert estimator_of(method.name) == "ebpo_debiased:memory=0.95"


BAD = {
    "grpo + clup": "unknown part of a method 'clup': did you mean 'clip'",
    "grpo + clip:lo=0.1": "unknown setting of clip 'lo'",
    "grpo + clip:low=wide": "low must be a finite number or none, got 'wide'",
    "grpo + clip:low=0.2,low=0.3": "low is given twice",
    "grpo + clip + clip:low=0.1": "names 'clip' twice",
    "grop + clip": "unknown estimator 'grop'",
    "grpo + ": "unknown part of a method ''",
    "clip": "unknown estimator 'clip'",
    "grpo+clip": "unknown estimator 'grpo",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_method_is_refused(text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_method(text, None, rungs.CHAINS)
    assert BAD[text] in str(refused.value)


@given(text=st.text(alphabet="grpoclip+ :=,.0123kdual\n", max_size=24))
def test_any_text_is_a_method_or_an_input_error(text: str) -> None:
    for whole in (text, f"grpo + {text}", f"grpo + clip:{text}", f"{text} + kl"):
        try:
            parse_method(whole, None, rungs.CHAINS)
        except InputError:
            continue


def test_a_rung_without_tokens_takes_a_bare_estimator() -> None:
    assert parse_method("grpo", None, rungs.COUNTS).objectives == ()
    with pytest.raises(InputError, match=r"cispo needs log_probs, which .* name the estimator alone"):
        parse_method("grpo + cispo", None, rungs.COUNTS)


@pytest.mark.parametrize(
    ("rung", "text", "reason", "remedy"),
    [
        (rungs.LANGUAGE_MODEL, "entropy", "entropy needs entropy, which llm", "compute every token's entropy"),
        (rungs.TRL, "entropy", "entropy needs entropy, which trl", "set GRPOConfig's entropy_coef"),
        (rungs.VERL, "entropy", "entropy needs entropy, which verl", "set verl's actor.entropy_coeff"),
        (rungs.VERL, "kl", "kl needs reference, which verl", "set verl's actor.use_kl_loss"),
    ],
    ids=lambda x: getattr(x, "name", str(x)),
)
def test_what_a_rung_cannot_compute_is_named(rung: rungs.Rung, text: str, reason: str, remedy: str) -> None:
    """Guards the refusal and the capability table, which must tell the same."""
    with pytest.raises(InputError, match=f"{reason}.*{remedy}"):
        parse_method(f"grpo + clip + {text}", None, rung)
    (row,) = [row for row in capabilities() if (row["kind"], row["part"]) == ("objective", text)]
    assert row[rung.name] == f"needs {reason.split(' ')[2].rstrip(',')}"


def test_the_table_computes_where_objectives_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the capability table: on every rung exactly the objectives that a method may name there, with reasons."""
    apart(monkeypatch)

    class Remembering(Clip):
        def init(self):
            return {"seen": 0.0}

    class Wide(Clip):
        scope = "group"

    register_objective("remembering")(Remembering)
    register_objective("wide")(Wide)
    rows = {row["part"]: row for row in capabilities() if row["kind"] == "objective"}
    assert [rows["remembering"][r] for r in ("counts", "chains", "trl")] == ["no tokens", "", "keeps a state"]
    assert [rows["wide"][r] for r in ("chains", "llm", "trl", "verl")] == ["", *["looks at a whole group"] * 3]
    assert [rows["kl"][r] for r in ("counts", "chains", "llm", "trl")] == ["no tokens", "", "", ""]
    for name, row in rows.items():
        for rung in rungs.RUNGS:
            try:
                parse_method(f"grpo + {name}", None, rung)
            except InputError:
                assert row[rung.name] != "", (name, rung.name)
            else:
                assert row[rung.name] == "", (name, rung.name)


CHAIN = skill_chain(2, 3, 20, (1, 2, 3), seed=3, shared_skills=2, actions=4, validation=6)
CONFIG = TrainingConfig("grpo", group_size=4, prompts=10, steps=6, learning_rate=0.3, minibatches=2, epochs=2,
                        record_every=6, gradient_redraws=0, seed=4)  # fmt: skip


def test_naming_the_default_changes_nothing() -> None:
    """The configured clip and divergence spelt out in the method train to the same bits."""
    plain = train(CHAIN, replace(CONFIG, clip_high=0.05, kl=0.02))
    spelt = train(CHAIN, replace(CONFIG, estimator="grpo + clip:high=0.05 + kl:coef=0.02,clamp=10"))
    for name, values in plain.values.items():
        np.testing.assert_array_equal(spelt.values[name], values, err_msg=name)


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_trains_on_the_chains(name: str) -> None:
    """Off-policy, with minibatches and epochs: the policy moves, stays finite, and not as under the plain clip."""
    terms = ("kl", "entropy", "kl_old", "entropy_target", "tis", "icepop", "mis")
    alone = f"grpo + clip + {name}" if name in terms else f"grpo + {name}"
    strong = {"kl": ":coef=0.5", "entropy": ":coef=0.5", "entropy_target": ":target=3"}.get(name, "")
    config = replace(CONFIG, estimator=alone + strong)
    moved = advance(CHAIN, config, start(CHAIN, config), 6).theta_SK
    assert np.all(np.isfinite(moved)) and np.any(moved != CHAIN.start_SK)
    plain = advance(CHAIN, CONFIG, start(CHAIN, CONFIG), 6).theta_SK
    assert name in ("clip", "tis", "icepop", "mis") or np.max(np.abs(moved - plain)) > 1e-6


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name: str) -> None:
    """Guards the published methods: each name is its text, spelt in parts that exist, and trains two steps; where a
    rung lacks something it is refused with the part and the remedy named."""
    config = replace(CONFIG, steps=2)
    runs = [advance(CHAIN, c, start(CHAIN, c), 2) for c in (
        replace(config, estimator=text) for text in (name, RECIPES[name].text))]  # fmt: skip
    assert np.all(np.isfinite(runs[0].theta_SK)) and np.any(runs[0].theta_SK != CHAIN.start_SK)
    np.testing.assert_array_equal(runs[0].theta_SK, runs[1].theta_SK)
    assert name not in estimator_names()
    assert RECIPES[name].source == "" or re.fullmatch(r"\d{4}\.\d{5}", RECIPES[name].source)
    for rung in (rungs.TRL, rungs.VERL):
        with pytest.raises(InputError, match=r"does not (provide|carry).*: .+"):
            parse_method(name, None, rung)


def test_a_recipe_stands_at_the_beginning() -> None:
    """Guards the grammar: a recipe takes further parts, has no settings, and is no part of another method."""
    made = parse_method("dapo + kl:coef=0.1", None, rungs.CHAINS)
    assert made.objectives == (Clip(high=0.28), KL(0.1)) and made.aggregation == Aggregation()
    assert made.selection == Dynamic() and made.name == "dapo + kl:coef=0.1"
    assert estimator_of("delta_l + entropy") == "grpo"
    for text, says in (("dapo:high=0.3", "unknown estimator 'dapo'"), ("grpo + dapo", "unknown part of a method"),
                       ("dapo + clip", "'clip' twice"), ("gspo + token_mean", "a second aggregation")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            parse_method(text, None, rungs.CHAINS)


def test_overlong_shaping() -> None:
    """Guards DAPO's penalty: by hand, that the estimator's own statistics are those of the shaped rewards, that a
    selection sees the plain ones, and that memories and needs know of it."""
    method = parse_method("grpo + overlong:longest=10,cache=4,factor=0.5 + dynamic:batches=1", None, rungs.CHAINS)
    groups = group_rewards([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]], lengths=[[5, 6, 8, 99], [10, 8, 7, 6]])
    shaped = np.array([[1.0, 1.0, 0.75, 0.5], [0.5, -0.25, -0.125, 1.0]])
    expected, _, _ = make("grpo").step((), group_rewards(shaped))
    found, _, _ = method.estimator.step((), groups)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    decided = decide(method, begin(method), groups, Ask(0, 1, 2, 4), 0)
    assert decided.keep_PG.all(axis=1).tolist() == [False, True]
    np.testing.assert_allclose(decided.advantage_PG[1], expected[1], rtol=1e-14)
    assert "lengths" in method.needs() and method.estimator.name != make("grpo").name
    plain = train(CHAIN, CONFIG).values["pass1"]
    np.testing.assert_array_equal(train(CHAIN, replace(CONFIG, estimator="grpo + overlong")).values["pass1"], plain)
    for text, says in (
        ("grpo + overlong:cache=0", "overlong needs 1 <= cache"),
        ("grpo + overlong + overlong", "twice"),
    ):
        with pytest.raises(InputError, match=says):
            parse_method(text, None, rungs.TRL)
    with pytest.raises(InputError, match="overlong needs log_probs, which counts"):
        parse_method("grpo + overlong", None, rungs.COUNTS)
    with pytest.raises(InputError, match="overlong needs lengths"):
        method.estimator.step((), group_rewards([[1.0, 0.0]]))


def test_the_methods_own_weights_of_tokens() -> None:
    """Guards the aggregation of a method: it takes the place of the host's, on the chains to the same bits, and in
    llm's loss; what an aggregation needs is asked for."""
    own = train(CHAIN, replace(CONFIG, aggregation="sequence_mean")).values["pass1"]
    named = train(CHAIN, replace(CONFIG, estimator="grpo + clip + sequence_mean")).values["pass1"]
    np.testing.assert_array_equal(own, named)
    pytest.importorskip("torch")
    from llm.run import objective_of
    from llm.settings import Settings

    made = parse_method("grpo + gspo + delta_l:power=0.75", None, rungs.LANGUAGE_MODEL)
    loss = objective_of(Settings(), 9, made.objectives, made.aggregation)
    assert (loss.objectives, loss.aggregation) == ((GSPO(),), Aggregation("delta_l", None, 0.75))
    with pytest.raises(InputError, match="constant_length"):
        parse_method("grpo + clip + constant_length", None, rungs.CHAINS)


def test_the_recipes_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    methods_main(["--recipes"])
    printed = capsys.readouterr().out
    assert all(recipe.text in printed and recipe.source in printed for recipe in RECIPES.values())
    methods_main(["--recipes", "--json"])
    assert [row["recipe"] for row in json.loads(capsys.readouterr().out)] == list(RECIPES)


def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test registers is gone after it."""
    monkeypatch.setattr(OBJECTIVES, "_parts", dict(OBJECTIVES._parts))
    monkeypatch.setattr(registry, "_kind_of", dict(registry._kind_of))


def test_a_user_registers_an_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a name of its own, once; it is then in every method text."""
    apart(monkeypatch)

    @register_objective("tight")
    class Tight(Clip):
        """A clip of another name."""

    assert isinstance(make_objective("tight:low=0.01"), Tight)
    learner = learner_of(CONFIG, parse_method("rloo + tight", None, rungs.CHAINS).objectives)
    assert type(learner.objectives[0]) is Tight
    for name in ("clip", "dynamic"):  # one namespace for all kinds
        with pytest.raises(InputError, match="already registered"):
            register_objective(name)(Tight)


class Counting(Clip):
    """A clip whose weight is 1 + the mean advantage of a token seen so far."""

    def init(self):
        return Seen(0.0, 0.0)

    def observe(self, seen):
        return Seen(float(seen.mask_NT.sum()), float((seen.advantage_NT * seen.mask_NT).sum()))

    def forget(self, state):
        return Seen(0.5 * state.tokens, 0.5 * state.total)

    def merge(self, a, b):
        return Seen(a.tokens + b.tokens, a.total + b.total)

    def push(self, state, tokens, draw=None):
        push = super().push(state, tokens, draw)
        return push._replace(log_prob_NT=push.log_prob_NT * (1 + state.total / (1 + state.tokens)))


class Seen(NamedTuple):
    tokens: float
    total: float


def test_an_objective_with_a_memory_on_the_chains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Guards the memory: it changes the run, is saved with it, and a resumed run is the uninterrupted one; trainers
    that carry none refuse it."""
    apart(monkeypatch)
    register_objective("counting")(Counting)
    config = replace(CONFIG, estimator="ebpo + counting", record_every=2)
    whole, plain = train(CHAIN, config), train(CHAIN, replace(config, estimator="ebpo + clip"))
    assert not np.array_equal(whole.values["pass1"], plain.values["pass1"])
    pieces = train(CHAIN, config, tmp_path / "state.json", save_every=2)
    np.testing.assert_array_equal(whole.values["pass1"], pieces.values["pass1"])
    state = resume(tmp_path / "state.json", CHAIN, config).method.objectives
    assert state[0].tokens > 10
    for rung in (rungs.TRL, rungs.VERL):
        with pytest.raises(InputError, match="counting keeps a state"):
            parse_method("grpo + counting", None, rung)


def test_an_objective_with_a_memory_on_the_language_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Guards the same there, with a mini-batch computed in parts: what the parts show is one mini-batch's."""
    train_llm = pytest.importorskip("llm.train")
    from llm.settings import Settings

    apart(monkeypatch)
    register_objective("counting")(Counting)
    tiny = Settings(
        estimator="grpo + counting", prompts=4, steps=2, topics="count", per_cell=8, eval_per_cell=1, eval_samples=1,
        sft_steps=5, hidden=16, layers=1, heads=2, kv_heads=1, threads=1, checkpoint_every=1,
    )  # fmt: skip
    states = []
    for micro in (0, 3):
        out = tmp_path / str(micro)
        train_llm.train(replace(tiny, micro_rows=micro), out, tmp_path / "cache")
        method = parse_method(tiny.estimator, None, rungs.LANGUAGE_MODEL)._replace(allocation=Order())
        saved = train_llm.checkpoints.load(out / "checkpoint.pt")["method"]
        states.append(load_state(method, saved).objectives[0])
    assert states[0].tokens > 20 and states[0].tokens == states[1].tokens
    assert states[0].total == pytest.approx(states[1].total, rel=1e-6, abs=1e-6)


def test_what_no_rung_can_carry_is_refused() -> None:
    """On the language model an objective that looks beyond its row would be silently another."""

    class Wide(Clip):
        scope = "batch"

    loss = pytest.importorskip("llm.objectives").Loss
    with pytest.raises(InputError, match="Wide looks at a whole batch"):
        loss((Wide(),))


def test_the_language_model_takes_the_same_text() -> None:
    """Its loss has the objectives that the method names; without any, those of its own settings."""
    run = pytest.importorskip("llm.run")
    settings = pytest.importorskip("llm.settings").Settings(clip_high=0.28, kl_coef=0.01)
    named = parse_method("rloo + cispo", None, rungs.LANGUAGE_MODEL).objectives
    assert run.objective_of(settings, 9, named).objectives == (CISPO(),)
    assert run.objective_of(settings, 9).objectives == (Clip(0.2, 0.28), KL(0.01))

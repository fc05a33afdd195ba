"""What studies say they will take: memory against the arrays they make, growth with every size, refusals in time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ebpo_sim import budget
from ebpo_sim.chains.population import parse_population
from ebpo_sim.chains.rung import TrainingConfig, train
from ebpo_sim.counts.streams import Design
from ebpo_sim.errors import InputError
from ebpo_sim.studies import costs
from ebpo_sim.studies.base import Settings, Study, run
from ebpo_sim.studies.clustering import study as clustering_study
from ebpo_sim.studies.entropy import study as entropy_study
from ebpo_sim.studies.failure import study as failure_study
from ebpo_sim.studies.mse import study as mse_study
from ebpo_sim.studies.training import study as training_study
from ebpo_sim.studies.training.cells import plan, typical

STUDIES = (mse_study, failure_study, entropy_study, clustering_study)
NAMES = [module.STUDY.name for module in STUDIES]
BETA, TOPICS, DRIFT = "beta:0.5,0.7", "topics:0.4,0.05,0.8,0.2,0.6@20", "drift:0.3,0.001@10"


def peak(work: Callable[[], object]) -> float:
    """Bytes of arrays and objects at their most."""
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return float(found)


@pytest.mark.parametrize(
    ("study", "world", "group_size", "design"),
    [
        (mse_study.STUDY, BETA, 256, Design(16, 2, 1, 16)),  # an estimator's table
        (mse_study.STUDY, BETA, 4, Design(1, 200, 199, 100)),  # the stream of all batches
        (failure_study.STUDY, BETA, 256, Design(16, 2, 1, 16)),
        (entropy_study.STUDY, BETA, 4, Design(30_000, 2, 1, 2)),  # a batch of policies
        (clustering_study.STUDY, TOPICS, 64, Design(16, 10, 0, 20)),  # orders x batches x topics
        (clustering_study.STUDY, DRIFT, 64, Design(16, 40, 0, 4)),  # a topic a batch
        (clustering_study.STUDY, DRIFT, 1, Design(20_000, 4, 0, 2)),  # prompts of an epoch
    ],
    ids=lambda x: x.name if isinstance(x, Study) else str(x),
)
def test_memory_is_that_of_the_arrays(
    study: Study, world: str, group_size: int, design: Design, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the estimates: within a factor of three of what is really held, where one array at a time dominates."""
    monkeypatch.setitem(entropy_study.LONG, "steps", 2)  # their arrays are the same at every step
    settings = Settings((world,), (group_size,), ("ebpo",), design)
    small = design._replace(prompts=16, steps=2, burn_in=0, replicates=2)
    study.simulate(replace(settings, group_sizes=(4,), design=small), 1)  # compiled code is none of the arrays
    held = peak(lambda: study.simulate(settings, 1))
    said = study.cost(settings, 1).memory - costs.PROGRAM
    assert held > 2e6  # else the comparison would be of small change
    assert 1 / 3 < said / held < 3, f"said {said / 1e6:.1f} MB, held {held / 1e6:.1f} MB"


@pytest.mark.parametrize(("population", "group_size", "steps"), [(6000, 2, 2), (64, 8192, 2), (64, 1, 60_000)])
def test_memory_of_a_training_run(population: int, group_size: int, steps: int) -> None:
    """Guards the training study's estimate in the same way: population, rollouts, and the order of a long stream."""
    settings = replace(
        training_study.QUICK, worlds=("chain",), estimators=("ebpo",), group_sizes=(group_size,), orders=("shuffled",),
        regimes=("noisy",), population=population, steps=steps, records=1,
    )  # fmt: skip
    (prompts,) = {cell.rollouts // group_size for _, cell in plan(settings, typical(settings)).places()}
    config = TrainingConfig("ebpo", group_size, prompts, steps, kl=0.001, minibatches=1, record_every=steps,
                            gradient_redraws=0)  # fmt: skip

    def run() -> None:
        crowd = parse_population("chain", population, 0, 128)
        if steps < 1000:
            train(crowd, config)
        else:  # the steps themselves would take a minute; the order of the stream is what grows with them
            from ebpo_sim.chains.rung import stream

            stream(crowd, config)

    run()
    kept = 16 * 250 * population  # populations that the study keeps, and this one run does not
    said = costs.training(settings, 1).memory - costs.PROGRAM - kept
    held = peak(run)
    assert held > 2e6
    assert 1 / 3 < said / held < 3, f"said {said / 1e6:.1f} MB, held {held / 1e6:.1f} MB"


SIZES = st.tuples(*(st.integers(1, 10**12) for _ in range(3)), st.integers(1, 1024))


@pytest.mark.parametrize("module", STUDIES, ids=NAMES)
@given(sizes=SIZES, which=st.integers(0, 3))
@examples(max_examples=25)
def test_more_of_anything_costs_more(module: Any, sizes: tuple[int, int, int, int], which: int) -> None:
    """Guards against a size that an estimate forgets: twice of it never costs less, and seconds always more."""

    def cost(prompts: int, steps: int, replicates: int, group_size: int) -> costs.Cost:
        design = Design(prompts, steps, 0, replicates)
        found: costs.Cost = module.STUDY.cost(replace(module.QUICK, group_sizes=(group_size,), design=design), 2)
        return found

    twice = tuple(2 * x if i == which else x for i, x in enumerate(sizes))
    (memory, seconds), (more_memory, more_seconds) = cost(*sizes), cost(*twice)
    assert 0 < memory <= more_memory < float("inf")
    assert 0 < seconds < more_seconds < float("inf")


@pytest.mark.parametrize("module", STUDIES, ids=NAMES)
def test_defaults_are_affordable(module: Any) -> None:
    """Guards the shipped settings: below a gigabyte and ten minutes, on however few cores."""
    for settings in (module.STUDY.full, module.STUDY.quick):
        memory, seconds = module.STUDY.cost(settings, 1)
        assert memory < 1e9 and costs.START < seconds < 600
    for asked in (training_study.SETTINGS, training_study.QUICK):
        memory, seconds = costs.training(asked, 2)
        assert memory < 2e9 and seconds < 7200


HUGE = [
    ["--steps", "1000000000000"], ["--replicates", "1000000000"], ["--prompts", "1000000000000"],
    ["--steps", "10000000000000"], ["--replicates", "1" + "0" * 400], ["--group-size", "1025"],
    ["--group-size", "1000000000000"], ["--threads", "1000000"], ["--seed", str(2**62)],
]  # fmt: skip


@pytest.mark.parametrize("options", HUGE, ids=lambda o: f"{o[0]} {o[1][:14]}")
@pytest.mark.parametrize("module", STUDIES, ids=NAMES)
def test_what_no_machine_can_do_is_refused_at_once(module: Any, options: list[str], tmp_path: Path) -> None:
    """Guards hostile numbers: one line with the option, before anything is simulated or written."""
    with pytest.raises(InputError, match=options[0]) as refusal:
        module.main(["--quick", *options, "--out", str(tmp_path / "out")])
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [["--steps", "1000000000000"], ["--seeds", "400000"], ["--steps", "10000000"], ["--group-size", "1025"],
     ["--threads", "100000"], ["--seed", "-1"], ["--seeds", "1"]],
    ids=" ".join,
)  # fmt: skip
def test_training_that_no_machine_can_do_is_refused_at_once(options: list[str], tmp_path: Path) -> None:
    """Guards the training study's numbers in the same way."""
    with pytest.raises(InputError, match=options[0]):
        training_study.main(["--quick", *options, "--out", str(tmp_path / "out")])
    assert list(tmp_path.iterdir()) == []


def test_yes_lets_time_pass_and_never_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards --yes: a long run begins with it and not without; one beyond the memory never does."""

    class BegunError(Exception):
        pass

    def begin(*_: object) -> None:
        raise BegunError

    study = mse_study.STUDY._replace(simulate=begin)
    long = ["--quick", "--prompts", "100000000000", "--out", str(tmp_path)]
    with pytest.raises(InputError, match=r"would take about .* (days|years).*or add --yes$"):
        run(study, long)
    with pytest.raises(BegunError):
        run(study, [*long, "--yes"])
    monkeypatch.setattr(budget, "machine_memory", lambda: 1e6)
    with pytest.raises(InputError, match="of memory, limit"):
        run(study, [*long, "--yes"])

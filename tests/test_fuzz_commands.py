"""Every command's grammar, fuzzed in this process: it runs, or it refuses with one line and exit code 2. No traceback.

Small worlds are really simulated and small logs really diagnosed; the long programs are followed up to the point where
their work would begin. Examples are derandomised, so a failure here is a failure everywhere.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebpo_sim import cli, names
from ebpo_sim.bench import engine as bench
from ebpo_sim.claims import __main__ as claims
from ebpo_sim.diagnose import __main__ as diagnose
from ebpo_sim.diagnose import coverage
from ebpo_sim.studies.allocation import study as allocation_study
from ebpo_sim.studies.clustering import study as clustering_study
from ebpo_sim.studies.entropy import study as entropy_study
from ebpo_sim.studies.failure import study as failure_study
from ebpo_sim.studies.hidden_bias import study as hidden_bias_study
from ebpo_sim.studies.methods import study as methods_study
from ebpo_sim.studies.mse import study as mse_study
from ebpo_sim.studies.prediction import study as prediction_study
from ebpo_sim.studies.training import study as training_study
from paper_figures import __main__ as figures

Main = Callable[[Sequence[str]], None]
ODD = ["", "-1", "0", "1", "3", "2", "1e3", "nan", "inf", "-inf", "abc", "0x10", "٣", "1_0", "9" * 30, "1" + "0" * 400,
       "--", "\ud800", "\x1b[2J", "a\nb", "None", "true", "1.5", "-0"]  # fmt: skip
NUMBER = st.one_of(st.sampled_from(ODD), st.integers(-(10**20), 10**20).filter(lambda x: not 8 < x < 10**13).map(str))
REAL = st.one_of(
    st.floats().map(repr), st.sampled_from(["1e-320", "5e-324", "1e308", "1e-9", "0.5", "1", "2", ".", "1e400", "-0"])
)


def joined(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map("".join)


PLAIN_WORLD = st.one_of(
    joined(st.just("beta:"), REAL, st.just(","), REAL),
    joined(st.just("logitnormal:"), REAL, st.just(","), REAL),
    st.lists(joined(REAL, st.sampled_from(["", "@"]), REAL), max_size=3).map(lambda parts: "points:" + ",".join(parts)),
    st.sampled_from(["beta:2,3", "points:0,1", "points:0.3", "observed:Qwen2.5-7B", "observed:Qwen", "observed:",
                     "observed:../../x", "counts:", "counts:.", "counts:/dev/null", "counts:missing.csv", "topics:",
                     "drift:0.3,0.01@4", "beta:1", ":", "beta", "mix:", "mix:1*", "mix:" + "mix:" * 300, "bandit:2,3"]),
    st.text(alphabet="beta:,@*+0123456789.-e points mix\x00\n", max_size=20),
)  # fmt: skip
WORLD = st.one_of(
    PLAIN_WORLD,
    st.lists(joined(REAL, st.just("*"), PLAIN_WORLD), min_size=1, max_size=3).map(
        lambda parts: "mix:" + "+".join(parts)
    ),
)
SETTING = st.sampled_from(["memory", "ddof", "eps", "order", "scale", "centre", "shrinkage", "grid", "iterations",
                           "prior", "per_cluster", "leave_one_out", "singleton", "standardise", "x", ""])  # fmt: skip
ESTIMATOR = st.one_of(
    st.sampled_from([*names(), "ebpo ", "EBPO", "", "ebpo:"]),
    st.tuples(st.sampled_from(names()), st.lists(joined(SETTING, st.just("="), NUMBER), max_size=3)).map(
        lambda both: f"{both[0]}:{','.join(both[1])}"
    ),
)
COUNT = st.one_of(st.integers(0, 12).map(str), NUMBER)
COUNT_LINES = st.lists(st.tuples(COUNT, COUNT), max_size=6)


def count_file(rows: list[tuple[str, str]], head: str) -> bytes:
    return (head + "\n" + "\n".join(",".join(row) for row in rows)).encode("utf-8", "surrogatepass")


HEAD = st.sampled_from(
    ["rollouts,successes", "successes,rollouts", "rollouts,successes,prompts", "n,k", "", "rollouts"]
)
VALUE = st.one_of(
    st.floats(allow_nan=True), st.integers(-5, 5),
    st.sampled_from([10**30, 1e155, 1e200, 5e-324, "1", "x", None, True, [], {}]),
    st.integers(0, 1), st.integers(0, 1), st.integers(0, 1),
)  # fmt: skip
ROW = st.fixed_dictionaries(
    {"prompt_id": st.one_of(st.integers(0, 3), st.text(max_size=3)), "reward": VALUE},
    optional={"cluster": st.text(max_size=3), "step": VALUE, "model": st.text(max_size=2), "length": VALUE,
              "rollouts": VALUE, "successes": VALUE},
)  # fmt: skip
LOG = st.one_of(
    st.lists(ROW, max_size=12).map(lambda rows: "\n".join(json.dumps(r) for r in rows).encode()),
    st.tuples(COUNT_LINES, HEAD).map(lambda both: count_file(*both)),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), min_size=2, max_size=30).map(
        lambda rows: ("prompt_id,reward\n" + "\n".join(f"p{i},{r}" for i, r in rows)).encode()
    ),
    st.binary(max_size=60),
    st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b"\x1f\x8b\x08\x00", b"PAR1", b"\xff\xfea\x00", b"1" * 7000]),
)


class Begun(BaseException):
    """The command would begin its work here."""


class Command(NamedTuple):
    """base: arguments that make it small. options: a strategy each. stops: where the work of a long one begins."""

    main: Main
    base: tuple[str, ...]
    options: dict[str, st.SearchStrategy[str]]
    stops: tuple[tuple[Any, str], ...] = ()


SMALL = ("--quick", "--threads", "1", "--prompts", "4", "--steps", "4", "--burn-in", "2", "--replicates", "2",
         "--group-size", "2", "--world", "points:0.2,0.7", "--estimator", "ebpo")  # fmt: skip
STUDY = {"--world": WORLD, "--estimator": ESTIMATOR, "--group-size": NUMBER, "--prompts": NUMBER,
         "--steps": NUMBER, "--burn-in": NUMBER, "--replicates": NUMBER, "--seed": NUMBER, "--threads": NUMBER,
         "--frob": NUMBER}  # fmt: skip
TRAINING = {"--world": WORLD, "--estimator": ESTIMATOR, "--group-size": NUMBER, "--seed": NUMBER,
            "--threads": NUMBER, "--steps": NUMBER, "--seeds": NUMBER, "--order": NUMBER,
            "--optimiser": NUMBER, "--regime": NUMBER}  # fmt: skip
FEW = {"--seed": NUMBER, "--threads": NUMBER, "--frob": NUMBER}
COMMANDS = {
    "mse_study": Command(mse_study.main, SMALL, STUDY),
    "entropy_study": Command(entropy_study.main, SMALL, STUDY),
    "failure_study": Command(failure_study.main, SMALL, STUDY),
    "clustering_study": Command(clustering_study.main, ("--quick", "--threads", "1", "--steps", "4"), STUDY,
                                ((clustering_study, "simulate"),)),
    "hidden_bias_study": Command(hidden_bias_study.main, ("--quick",), FEW, ((hidden_bias_study, "simulate"),)),
    "training_study": Command(training_study.main, ("--quick",), TRAINING, ((training_study, "simulate"),)),
    "prediction_study": Command(prediction_study.main, ("--quick",), TRAINING,
                                ((prediction_study, "simulate"),)),
    "allocation_study": Command(allocation_study.main, ("--quick",), TRAINING,
                                ((allocation_study, "simulate"),)),
    "methods_study": Command(methods_study.main, ("--quick",),
                             {**TRAINING, "--staleness": NUMBER, "--mismatch": NUMBER},
                             ((methods_study, "simulate"),)),
    "claims": Command(claims.main, ("--quick",),
                      {**FEW, "T2": st.just("T2"), "X": NUMBER, "--world": WORLD, "--group-size": NUMBER},
                      ((claims, "run_ledger"),)),
    "bench": Command(bench.main, ("--quick",), FEW, ((bench, "measure"),)),
    "coverage": Command(coverage.main, ("--quick",), FEW, ((coverage, "study"),)),
    "paper_figures": Command(figures.main, ("--quick",), {**FEW, "figure2": st.just("figure1"), "": NUMBER},
                             ((figures.loading, "load"),)),
}  # fmt: skip


def outcome(main: Main, arguments: Sequence[str], stops: Sequence[tuple[Any, str]] = ()) -> tuple[Any, str]:
    """(exit code or "begun", standard error) of a command line; any other exception is the test's failure."""
    errors, code = io.StringIO(), None
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", ["command", *arguments]))
        for owner, name in stops:
            stack.enter_context(mock.patch.object(owner, name, side_effect=Begun))
        stack.enter_context(contextlib.redirect_stderr(errors))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        try:
            cli.run(main)
        except SystemExit as leaving:
            code = leaving.code
        except Begun:
            code = "begun"
    return code, errors.getvalue()


def check(code: Any, errors: str) -> None:
    """It went well, or it was refused in exactly one line."""
    if code in (None, 0, "begun"):
        assert errors == ""
        return
    assert code == 2
    assert errors.startswith("error: ") and errors.endswith("\n") and errors.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_options_run_or_are_refused_in_one_line(name: str, data: st.DataObject) -> None:
    """One to three options with anything behind them, after arguments that keep the work small."""
    command = COMMANDS[name]
    changed: list[str] = []
    for option in data.draw(st.lists(st.sampled_from(sorted(command.options)), min_size=1, max_size=3)):
        value = data.draw(command.options[option])
        changed += [option, value] if data.draw(st.booleans()) else [f"{option}={value}"]
    with tempfile.TemporaryDirectory() as folder:
        out = () if name == "coverage" else ("--out", folder)
        check(*outcome(command.main, [*command.base, *out, *changed], command.stops))


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(rows=COUNT_LINES, head=HEAD, size=st.sampled_from(["2", "4"]))
def test_any_counts_file_is_a_world_or_refused(rows: list[tuple[str, str]], head: str, size: str) -> None:
    """Counts of one's own, few and odd ones first of all."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.csv")
        path.write_bytes(count_file(rows, head))
        arguments = [
            *SMALL[:-6],
            "--group-size",
            size,
            "--estimator",
            "ebpo",
            "--world",
            f"counts:{path}",
            "--out",
            folder,
        ]
        check(*outcome(mse_study.main, arguments))


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(content=LOG, suffix=st.sampled_from(["csv", "jsonl", "json", "csv.gz", "parquet", "txt"]))
def test_any_log_is_diagnosed_or_refused(content: bytes, suffix: str) -> None:
    """Any bytes under any name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"log.{suffix}")
        path.write_bytes(content)
        out = str(Path(folder, "out"))
        check(*outcome(diagnose.main, [str(path), "--quick", "--group-size", "2", "--estimator", "ebpo", "--out", out]))


def test_the_fuzzer_sees_a_traceback() -> None:
    """Guards the guard: an exception, two lines, or another code are failures."""

    def broken(argv: Sequence[str]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outcome(broken, [])
    for code, errors in ((2, ""), (2, "error: a\nb\n"), (1, "error: a\n"), (0, "warning\n")):
        with pytest.raises(AssertionError):
            check(code, errors)

"""What there is: `python -m ebpo_sim` lists the programs of the package and what each takes.

Durations are of two cores, without options; --quick is a first look.
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpo_sim import cli, report

PROGRAMS = (  # module, what it answers, expected duration
    ("mse_study", "which baseline is nearest to the true pass rate (the main job)", "10 s"),
    ("noise_study", "how noisy each method's gradient is", "1 min"),
    ("failure_study", "what all-fail and all-pass groups teach", "10 s"),
    ("entropy_study", "what each baseline does to the policy's entropy", "10 s"),
    ("clustering_study", "what batches sorted by topic do to EBPO's memory", "30 s"),
    ("hidden_bias_study", "biases of token weights, Adam and the clip", "10 s"),
    ("recorded_study", "what a prompt's own history saves on a recorded run", "20 s"),
    ("leaderboard", "every baseline on every recorded and observed world, ranked", "1 min"),
    ("training_study", "who trains faster, each method at its own best rate", "8 min; --quick 1 min"),
    ("prediction_study", "does noise or error predict training", "10 min; --quick 1 min"),
    ("allocation_study", "which prompts should get the rollouts", "8 min (estimated); --quick 30 s"),
    ("methods_study", "is DAPO, GSPO or CISPO better: all recipes side by side", "15 min (estimated); --quick 1 min"),
    ("claims", "which of the paper's claims hold: the ledger", "2 min"),
    ("diagnose FILE", "which baseline and group size suit your rollouts", "5 s"),
    ("diagnose.coverage", "do diagnose's intervals hold what they promise", "2 min"),
    ("sample_log", "the sample log that ships for diagnose, made anew", "10 s"),
    ("conventions", "what trainers mean by GRPO", "2 s"),
    ("methods", "every part, and the rungs where it stands", "1 s"),
    ("docs", "the generated pages: every method, every paper", "5 s"),
    ("check FILE.py", "does your estimator keep the contract", "2 s"),
    ("dossier FILE.py:NAME", "all that can be computed of one estimator, one page", "1 min; --quick 10 s"),
    ("bench", "speed of the Monte Carlo engine", "1 min"),
)


def main(argv: Sequence[str]) -> None:
    """Print the list, or with --json its rows."""
    parser = cli.Parser(prog="python -m ebpo_sim", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON")
    given = parser.parse_args(argv)
    rows = [{"program": name, "what it answers": about, "takes": time} for name, about, time in PROGRAMS]
    report.say(report.to_json(rows) if given.json else report.columns_table(rows, tuple(rows[0])))
    if not given.json:
        report.say("Run one with: python -m ebpo_sim.NAME [--quick] [--help]")


if __name__ == "__main__":
    cli.run(main)

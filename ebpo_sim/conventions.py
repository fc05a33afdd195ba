"""What trainers mean by GRPO: for each convention the advantages of one batch, and its expected weight on grad p.

The batch is that of the tests: four groups of four with 1, 3, 0 and 2 successes. weight: E[A grad log pi] = weight grad
p for a prompt of pass rate p in groups of G, exact; where a rule divides by the batch, its prompts are of --world.
all fail, all pass: the advantage in constant groups of that batch; lone 1, lone 0: in groups of one.
--out writes both tables, and a page on where two conventions differ and what each does to the update.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ebpo_sim import cli, report, rungs
from ebpo_sim.counts.updates import advantage_gap, limit_advantages
from ebpo_sim.errors import unknown_name
from ebpo_sim.estimators import make
from ebpo_sim.estimators.conventions import CONVENTIONS
from ebpo_sim.groups import group_rewards
from ebpo_sim.numbers import Array
from ebpo_sim.objectives import Aggregation
from ebpo_sim.worlds import parse_world

GOLDEN = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=np.float64)
PASS_RATES = (0.02, 0.1, 0.3, 0.5, 0.9)
CLOSE = np.array([[0.0, 0.0, 0.001, 0.001]] * 2 + [[0.0, 1.0, 0.0, 1.0]] * 2)  # two groups of hardly any spread
LENGTHS = np.array([100.0, 400.0])
CAPS = {  # CISPO's bounds on a token's weight by default: TRL takes its epsilon_high, 0.2, for the cap itself
    "verl": (0.8, 1.2), "trl": (0.0, 0.2), "open_instruct": (0.0, 1.2), "skyrl": (0.0, 5.0),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The command line."""

    names: tuple[str, ...] = cli.option((), "conventions or any estimators (default: all)", nargs="*", metavar="NAME")
    group_size: tuple[int, ...] = cli.option(
        (), "group sizes of the weights (repeatable; default 2, 8)", check=cli.check_group_size, metavar="G"
    )
    world: str = cli.option("beta:1,1", "pass rates of a large batch (default %(default)s)", metavar="WORLD")
    out: str = cli.out_option("conventions.csv, weights.csv and conventions.md (default: write nothing)")
    json: bool = cli.json_option("JSON")


def advantages(text: str, reward_PG: Array, lone: bool = False) -> Array:
    """The rule's advantages of the batch seen first, answers of one token; with `lone`, of a 1 and a 0 in groups of one
    beside it."""
    flat, ids = reward_PG.reshape(-1), np.repeat(np.arange(len(reward_PG)), reward_PG.shape[1])
    if lone:
        flat, ids = np.append(flat, [1.0, 0.0]), np.append(ids, [-1, -2])
    estimator = make(text)
    found, _, _ = estimator.step(estimator.init(), group_rewards(flat, ids, lengths=np.ones(len(flat))))
    return np.asarray(found)[-2:] if lone else np.asarray(found).reshape(reward_PG.shape)


def weights(text: str, group_size: int, world: str) -> tuple[Array, float, float]:
    """(weight on grad p at PASS_RATES, advantage in all-fail groups, in all-pass groups)."""
    table = limit_advantages(make(text), parse_world(world), group_size)
    return advantage_gap(table, PASS_RATES), float(table[0, 0]), float(table[-1, 1])


def rows(names: Sequence[str], group_sizes: Sequence[int], world: str) -> tuple[list[dict[str, Any]], ...]:
    """(a row a convention, a row a convention and G)."""
    first, second = [], []
    for name in names:
        known, golden = CONVENTIONS.get(name), advantages(name, GOLDEN)
        (_, fail, passed), (one, zero) = weights(name, 4, world), advantages(name, GOLDEN, lone=True)
        cells = {
            f"{k} of 4, {r}": _clean(golden[i, 0 if r else 3]) for i, k in ((0, 1), (1, 3), (3, 2)) for r in (1, 0)
        }
        first.append(
            {"convention": name, "preset": known.estimator if known else name, **cells, "all fail": _clean(fail)}
            | {"all pass": _clean(passed), "lone 1": _clean(one), "lone 0": _clean(zero)}
            | {"divider": known.divider if known else "", "source": known.source if known else ""}
        )
        for size in group_sizes:
            found = weights(name, size, world)[0]
            at = {f"p={p:g}": float(w) for p, w in zip(PASS_RATES, found, strict=True)}
            second.append({"convention": name, "group_size": size, **at})
    return first, second


def _clean(x: float) -> float:
    """Without the rounding of a mean."""
    return round(float(x), 12) + 0.0


def _hard(name: str, world: str) -> float:
    found = weights(name, 8, world)[0]
    return float(found[1] / found[3])


def _step(name: str, world: str) -> float:
    return float(weights(name, 8, world)[0][3])


def _close(name: str, world: str) -> float:
    found = advantages(name, CLOSE)
    return float(found[0, 3] / found[2, 3])


def _token(name: str, world: str) -> float:
    short, long = Aggregation(CONVENTIONS[name].divider or "token_mean", 400).rows(LENGTHS)
    return float(long / short)


PLACES: tuple[tuple[str, str, Callable[[str, str], float], tuple[str, ...]], ...] = (
    ("the spread", "weight of a prompt at p = 0.1 over one at 0.5, G = 8: what hard prompts count for", _hard,
     ("trl.grpo", "nemo_rl.grpo", "tinker.grpo", "trl.batch", "skyrl.maxrl")),
    ("ddof", "weight at p = 0.5, G = 8: a step size", _step, ("open_instruct.standard", "trl.grpo")),
    ("leave-one-out mean", "weight at p = 0.5, G = 8: a step size", _step, ("trl.rloo", "trl.dr_grpo")),
    ("a second norm", "weight at p = 0.1 over 0.5, G = 8: what the first left", _hard, ("areal.grpo", "areal.rloo")),
    ("eps", "advantage in a group of spread 0.0006 over one of 0.58: what small differences count for", _close,
     ("trl.grpo", "verl.grpo", "tinker.grpo")),
    ("groups of one", "advantage of a lone success", lambda name, _: float(advantages(name, GOLDEN, lone=True)[0]),
     ("verl.grpo", "trl.grpo", "skyrl.maxrl")),
    ("all-fail groups", "advantage there, in a large batch", lambda name, world: weights(name, 8, world)[1],
     ("verl.grpo", "verl.reinforce_plus_plus")),
    ("the divider", "weight of a token of a 400-token answer over one of 100", _token,
     ("trl.grpo", "ms_swift.grpo", "trl.dr_grpo")),
    ("the cap", "CISPO's weight of a token at ratio 1: a step size on policy",
     lambda library, _: float(np.clip(1.0, *CAPS[library])), tuple(CAPS)),
)  # fmt: skip


def differences(world: str) -> list[dict[str, Any]]:
    """Where two conventions part: a quantity of both, computed, and what it is to the update."""
    return [
        {"place": place, "quantity": quantity, "one": a, "value": value(a, world), "other": b, "its": value(b, world)}
        for place, quantity, value, members in PLACES
        for a, b in pairwise(members)
    ]


def page(first: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> str:
    """The Markdown page: differences first, then every convention."""
    lines = ["# Places where two GRPOs differ, and what each does to the update", ""]
    lines += ["| place | what is compared | one | is | other | is | other / one |", "|---|---|---|---|---|---|---|"]
    for row in found:
        ratio = f"{row['its'] / row['value']:.3g}" if row["value"] else "-"
        cells = (row["place"], row["quantity"], f"`{row['one']}`", f"{row['value']:.4g}", f"`{row['other']}`")
        lines.append(f"| {' | '.join(cells)} | {row['its']:.4g} | {ratio} |")
    lines += ["", "| convention | settings | divider | read in |", "|---|---|---|---|"]
    lines += [f"| `{r['convention']}` | `{r['preset']}` | {r['divider'] or '-'} | {r['source']} |" for r in first]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> None:
    """Print both tables, or with --json their rows; write them and the page with --out."""
    args = cli.parse(Options, "python -m ebpo_sim.conventions", __doc__, argv)
    for name in args.names:
        if "." in name.partition(":")[0] and name.partition(":")[0] not in CONVENTIONS:
            raise unknown_name("convention", name, CONVENTIONS)
        rungs.check(name, make(name).needs, rungs.COUNTS)
    first, second = rows(args.names or tuple(CONVENTIONS), args.group_size or (2, 8), args.world)
    found = differences(args.world)
    if args.out:
        out = report.writable_folder(args.out)
        with report.locked(out):
            files = {"conventions.csv": first, "weights.csv": second, "conventions.md": page(first, found)}
            report.write_files(out, files)
    if args.json:
        report.say(report.to_json({"conventions": first, "weights": second, "differences": found}))
        return
    shown = [{k: v for k, v in row.items() if k not in ("source", "divider")} for row in first]
    report.say(report.columns_table(shown, tuple(shown[0])))
    report.say(f"\nExpected weight on grad p (batch of {args.world} where it divides by one)\n")
    report.say(report.columns_table(second, tuple(second[0])))


if __name__ == "__main__":
    cli.run(main)

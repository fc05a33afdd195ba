"""What papers say of their objectives, decided exactly at single tokens, groups and small policies.

The checks are those of `objective_pushes` and `objective_policies`; every case is computed, none simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ebpo_sim.claims import objective_policies as policies
from ebpo_sim.claims import objective_pushes as pushes
from ebpo_sim.claims.base import Claim, Context, Finding, enter, presumed

PRESUMED = """
J1: independent tokens = holds_if; one ratio for all tokens = fails; mean one = holds_if
J2: a gradient at every token = holds; cispo, none further off = fails; clip, none further off = holds
J3: asymmetric = holds_if
J4: untruncated = holds; truncated at 2 = holds_if; truncated, bias below the mass cut off = holds; truncated, less
    bias than none = fails; masked, less bias than truncated = fails
J5: sapo = holds; mhpo = holds; vespo = holds; clip = fails
J6: sapo = holds; gspo = holds; gmpo = holds; vespo = holds; topr = holds; minpro = holds; dppo = holds; mhpo = fails
J7: at most the policies' = holds; at least the policies' = holds_if; clip, at most 0.15 = holds_if; KL 0.05, at most
    0.158 = holds
J8: wrong answers go down = holds_if; right answers go up = holds_if
J9: disco = holds; grpo = fails; dr_grpo = fails; real = fails
J10: centred = holds_if; baseline too low = holds_if
J11: less variance than the product = holds_if; mean one = holds_if; mean never above one = holds
J12: of the objective = fails; of the gradient = holds
J13: independent tokens = holds; one number for all tokens = holds_if; mean of answers = holds_if
J14: vespo, 1.25 = holds; mhpo, 4.482 = holds; topr, 1 = holds; cispo, 1.2 = holds; clip, 1.2 = fails
"""  # the verdicts that the lines below speak of: variant = word
Check = Callable[[Context], list[Finding]]


def _claims() -> Iterator[Claim]:
    exact, group = "exact moments", "a group on-policy"
    rows: tuple[tuple[str, str, str, str, Check], ...] = (
        ("GSPO (arXiv 2507.18071)", "The sequence ratio is a token ratio of less variance", exact,
         "Less variance where tokens differ, at the price of a bias: its mean is below one.", policies.sequence_ratio),
        ("CISPO (arXiv 2506.13585)", "A capped weight keeps every token's gradient, where a clip drops it", "one token",
         "It does, also beyond the bound: nothing stops a token from going on.", pushes.kept_gradient),
        ("DAPO (arXiv 2503.14476)", "A higher upper bound keeps entropy up", "a small step, one action in between",
         "Where that action is rare; a common one takes entropy away.", policies.clip_higher),
        ("TIS and IcePop (arXiv 2510.18855)", "Weights of old over sampler make the update the old policy's", exact,
         "Only untruncated; a truncated or masked weight may leave more bias than none.", policies.corrections),
        ("SAPO (arXiv 2511.20347), MHPO (2603.16929), VESPO (2602.10693)", "The push has no jump", "one token",
         "It has none, where PPO's clip has one of the size of the ratio.", pushes.smooth),
        ("one paper each", "On-policy the update is REINFORCE's", "one token",
         "MHPO's is a quarter of it, a step size that Adam hides.", pushes.on_policy),
        ("DPPO (arXiv 2602.04879)", "A sampled token's divergence stands for the policies'", "one step",
         "It is a lower bound alone; the ratio's bound lets common tokens go further.", policies.divergences),
        ("GBPO (arXiv 2604.18578)", "Ratios are drawn up for right and down for wrong answers", "binary rewards",
         "The majority of a group is held where it is.", pushes.targets),
        ("DisCO (arXiv 2505.12366), REAL (2602.05630)", "A question weighs the same whatever its pass rate", group,
         "DisCO's does; REAL's grows with the right answers.", pushes.question_weight),
        ("Clip-Cov, KL-Cov (arXiv 2505.22617)", "Leaving out the largest covariance keeps entropy", "natural gradient",
         "Where that covariance is above 0 and the baseline is not too far off.", policies.covariance),
        ("MinPRO (arXiv 2601.22718)", "The least ratio before stands for the prefix with less variance",
         "tokens of one law", "From the third token on, where it also has a mean below one.", policies.prefixes),
        ("BAPO (arXiv 2510.18927)", "A higher lower bound raises the share of good answers", "two answers",
         "Of the gradient; of the objective, which its rule measures, it lowers it.", pushes.balance),
        ("ΔL (arXiv 2509.07558)", "Its weights are unbiased and of least variance", "known lengths",
         "Of least variance for independent tokens; a mean of answers for one length.", policies.lengths),
        ("one paper each", "The size of a push is bounded", "ratios up to e^10",
         "All but PPO's clip, which has no bound for A < 0 (hence dual clip).", pushes.bounded),
    )  # fmt: skip
    for number, (source, statement, assumptions, means, check) in enumerate(rows, 1):
        words = presumed(PRESUMED.partition(f"\nJ{number}: ")[2].partition("\nJ")[0])
        yield Claim(f"J{number}", source, statement, assumptions, means, check, words)


enter(*_claims())

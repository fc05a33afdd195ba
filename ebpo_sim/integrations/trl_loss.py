"""Objectives of this project in the loss of TRL's GRPOTrainer.

While TRL computes its loss, it is given the objectives' pushes as the advantages of tokens whose ratio is 1, so that
its gradient is push * grad log pi under its own masks, weights of tokens, accumulation and corrections for vLLM; no
method is copied. The pushes are computed when its loss has called `_get_per_token_logps_and_entropies`.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from trl import GRPOTrainer

from ebpo_sim.errors import InputError
from ebpo_sim.objectives import Objective, Tokens, estimate, needs

WEIGHTS = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")  # loss types of TRL that differ in the weights of tokens alone
UNUSED: dict[str, tuple[Any, str]] = {  # GRPOConfig's option -> (its value under named objectives, the remedy)
    "beta": (0.0, "name kl:coef=... in the method"),
    "delta": (None, "name clip:dual=... in the method"),
    "epsilon_high": (None, "name clip:high=... or another objective's bound in the method"),
    "importance_sampling_level": ("token", "the ratio is the objectives' own"),
    "off_policy_mask_threshold": (None, "it looks at the advantages that the objectives' pushes stand in for"),
    "use_liger_kernel": (False, "its loss has not been held against the objectives"),
}


class PushedTrainer(GRPOTrainer):
    """GRPOTrainer whose gradient is that of `objectives`; of TRL's own loss where there are none.

    loss_type says how tokens are weighted; epsilon has no effect; the reference policy of a divergence is TRL's.
    Metrics: ebpo/clipped, the share of the tokens, and kl, by k3; of the logged loss only the gradient means anything.

    Raises InputError for options of GRPOConfig that objectives replace (UNUSED), other loss types, and
    top_entropy_quantile with a divergence.
    """

    beta: float

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: Any = None,
        *more: Any,
        objectives: tuple[Objective, ...] = (),
        **kwargs: Any,
    ) -> None:
        self.objectives = objectives
        self._awaiting: dict[str, Any] | None = None  # the inputs of the loss being computed, for the pushes
        super().__init__(model, reward_funcs, self._prepared(args), *more, **kwargs)

    def _prepared(self, args: Any) -> Any:
        """TRL's configuration for the objectives: a reference policy is there if and only if `beta` is not 0."""
        if args is None or not self.objectives:
            if "reference" in needs(self.objectives):
                raise InputError("args must be a GRPOConfig where the method names a divergence, got None: give one")
            return args
        for option, (due, remedy) in UNUSED.items():
            if getattr(args, option) != due:
                found = getattr(args, option)
                raise InputError(f"{option} must be {due!r} where objectives are named, got {found!r}: {remedy}")
        if args.loss_type not in WEIGHTS:
            raise InputError(
                f"loss_type must be one of {', '.join(WEIGHTS)} where objectives are named, got {args.loss_type!r}: it "
                "weights the tokens; cispo and vespo do it as dapo, sapo as grpo"
            )
        if "reference" not in needs(self.objectives):
            return args
        if args.top_entropy_quantile < 1:
            raise InputError(
                f"top_entropy_quantile must be 1 where the method names a divergence, got {args.top_entropy_quantile}: "
                "TRL leaves its own out of that choice; set beta and name no objective"
            )
        args = copy.copy(args)
        args.beta = 1.0
        return args

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        """The parent's loss; with named objectives of their pushes, which `_get_per_token_logps_and_entropies` fills in
        once the log-probabilities are there. Its own divergence and clip are out of it."""
        if not self.objectives:
            return super()._compute_loss(model, inputs)
        beta, self.beta, self._awaiting = self.beta, 0.0, dict(inputs)
        try:
            loss = super()._compute_loss(model, self._awaiting)
        finally:
            self.beta, self._awaiting = beta, None
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name in [name for name in metrics if name.startswith("clip_ratio/")]:
            del metrics[name]  # of ratios that are 1
        return loss

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        """The parent's; on the way the pushes take the place of the advantages, where the loss waits for them."""
        found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self._awaiting is not None:
            with torch.no_grad():
                self._push(self._awaiting, found[0].detach())
        return found

    def _push(self, inputs: dict[str, Any], log_prob_NT: torch.Tensor) -> None:
        """Advantages of the loss := pushes, its ratios := 1. The one place of this adapter that builds `Tokens`.

        The correction for vLLM's log-probabilities multiplies all but a divergence, as in TRL's own loss.
        """
        mask_NT = (inputs["completion_mask"] * inputs.get("tool_mask", 1)).bool()
        old_NT, reference_NT = inputs.get("old_per_token_logps"), inputs.get("ref_per_token_logps")
        tokens = Tokens(
            log_prob_NT,
            log_prob_NT if old_NT is None else old_NT,
            mask_NT,
            inputs["advantages"][:, None],
            reference_NT=reference_NT,
        )
        pushes = [(o.push((), tokens), "reference" in o.needs) for o in self.objectives]
        correction = inputs.get("importance_sampling_ratio", torch.ones_like(log_prob_NT))
        inputs["advantages"] = sum(p.log_prob_NT * (1.0 if apart else correction) for p, apart in pushes)
        inputs["old_per_token_logps"] = log_prob_NT
        inputs["importance_sampling_ratio"] = torch.ones_like(correction)
        totals: Counter[str] = Counter()
        for push, _ in pushes:
            totals.update({f"ebpo/{name}": count for name, count in push.counts.items()})
        if reference_NT is not None:
            k3_NT = estimate((reference_NT - log_prob_NT).masked_fill(~mask_NT, 0.0), "k3")
            totals["kl"] = k3_NT.sum()
        summed = torch.stack([torch.as_tensor(x).to(log_prob_NT) for x in (*totals.values(), mask_NT.sum())])
        *shares, tokens_all = self.accelerator.reduce(summed, reduction="sum").tolist()
        for name, share in zip(totals, shares, strict=True):
            self._metrics["train" if self.model.training else "eval"][name].append(share / max(tokens_all, 1.0))

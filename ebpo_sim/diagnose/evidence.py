"""What supports each recommendation: the study or claim that a reader can run."""

from __future__ import annotations

from collections.abc import Iterable

EVIDENCE = {  # how a sentence begins -> what follows `python -m ebpo_sim.`
    "Shrink:": "mse_study",
    "Shrinking helps a little:": "mse_study",
    "Keep the group mean": "mse_study",
    "Undecided:": "mse_study",
    "no group has two different rewards": "failure_study",
    "none of the estimators": "methods",
    "Confidence:": "diagnose.coverage",
    "Do not use EBPO": "claims T2",
    "EBPO as published": "claims T2",
    "Group size:": "mse_study",
    "Normalisation:": "claims N7",
    "What would change it:": "claims R2",
    "Noise says:": "noise_study",
    "Noise: rewards take": "claims N3",
    "Error says": "prediction_study",
    "Error and noise agree": "prediction_study",
    "Budget:": "claims N6",
    "History:": "recorded_study",
    "Dynamic sampling:": "diagnose.coverage",
    "Clusters:": "claims P2",
    "Training:": "recorded_study",
    "Rewards:": "claims N7",
    "Library:": "conventions",
}
KEY = "In brackets what supports a sentence: python -m ebpo_sim.NAME runs it."


def supported(sentences: Iterable[str]) -> tuple[str, ...]:
    """The sentences, each with its evidence. Raises LookupError for one without: no advice goes without."""
    found = []
    for sentence in sentences:
        command = next((c for start, c in EVIDENCE.items() if sentence.startswith(start)), None)
        if command is None:
            raise LookupError(f"no study or claim supports {sentence!r}")
        found.append(f"{sentence} [{command}]")
    return tuple(found)

"""Where the time of a step goes."""

from __future__ import annotations

import time

import torch


class Clock:
    """Seconds of each part since the previous one was noted."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._last = self._now()

    def note(self, part: str) -> None:
        """Everything since the last note was `part`."""
        now = self._now()
        self.seconds[f"seconds_{part}"] = self.seconds.get(f"seconds_{part}", 0.0) + now - self._last
        self._last = now

    def _now(self) -> float:
        if self._device.type == "cuda":  # kernels run behind the program's back
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

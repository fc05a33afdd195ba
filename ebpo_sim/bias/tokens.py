"""What the studies of this room ask an objective: answers that share one token, at a given ratio."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ebpo_sim.numbers import Array
from ebpo_sim.objectives import Objective, Tokens


def at_ratio(ratio: ArrayLike, advantage: ArrayLike, old: ArrayLike = 1.0) -> Tokens:
    """Tokens at s = pi/pi_old > 0 with pi_old = `old`; the arguments broadcast to one shape, of 2 axes at least, for
    objectives whose coefficient depends on the token alone."""
    s, A, start = np.broadcast_arrays(*(np.array(x, dtype=np.float64, ndmin=2) for x in (ratio, advantage, old)))
    log_old = np.log(start)
    return Tokens(np.log(s) + log_old, log_old, np.ones(s.shape, bool), A)


def coefficient(objective: Objective, ratio: ArrayLike, advantage: ArrayLike, old: ArrayLike = 1.0) -> Array:
    """w(s), the factor of grad log pi in the objective's gradient; shape of the arguments, broadcast."""
    shape = np.broadcast_shapes(np.shape(ratio), np.shape(advantage), np.shape(old))
    push = objective.push(objective.init(), at_ratio(ratio, advantage, old))
    return np.asarray(push.log_prob_NT).reshape(shape)


def worth(objective: Objective, ratio: ArrayLike, advantage: ArrayLike, held: ArrayLike, old: ArrayLike = 1.0) -> Array:
    """The objective at s = `ratio`, whatever it detaches taken at s = `held`; shape of the arguments, broadcast."""
    shape = np.broadcast_shapes(np.shape(ratio), np.shape(advantage), np.shape(held), np.shape(old))
    tokens, at = at_ratio(ratio, advantage, old), at_ratio(held, advantage, old)
    return np.asarray(objective.value(objective.init(), tokens, at)).reshape(shape)

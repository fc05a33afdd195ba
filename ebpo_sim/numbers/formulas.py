"""Closed forms as plain arithmetic: no imports, so floats, NumPy, torch and `numba.njit` share one source.

Notation. Rewards are Bernoulli(p), groups have `group_size` = G rollouts. `within` = w = E p(1-p) is the
within-prompt variance, `between` = T2 = Var p the between-prompt variance, and `icc` = rho = T2 / (w + T2)
the intra-class correlation of rewards. S is the shrinkage weight on the global mean. Functions are
elementwise; ranges are the caller's to check, because kernels call these too.
"""


def oracle_shrinkage(within, between, group_size):
    """S* = (w/G) / (w/G + T2), which minimises (1-S)^2 w/G + S^2 T2. EBPO Theorem 3.3 with the true moments."""
    return within / (within + group_size * between)


def critical_icc(group_size):
    """rho*(G): Algorithm 1's limit beats the group mean iff rho < rho*(G).

    The positive root of 2(G-1) rho^2 - (G-5) rho - 3 = 0, which is S = 2 S*. Written without dividing by G-1,
    so G = 1 gives 3/4. Falls from 0.75 (G = 1) towards 1/2.
    """
    b = group_size - 5
    return 6 / ((b * b + 24 * (group_size - 1)) ** 0.5 - b)


def conservative_icc(group_size):
    """1/(1 + sqrt(G)): Algorithm 1 shrinks no more than S* iff rho is at or below it (EBPO's 'conservative' remark)."""
    return 1 / (1 + group_size**0.5)


def degenerate_probability(p, group_size):
    """P(all G rewards equal) = p^G + (1-p)^G."""
    return p**group_size + (1 - p) ** group_size


def grpo_advantage_right(successes, group_size, ddof):
    """A of a rewarded rollout among k of G: sqrt((G-ddof)(G-k)/(G k)), eps 0, 1 <= k <= G-1."""
    return ((group_size - ddof) * (group_size - successes) / (group_size * successes)) ** 0.5


def grpo_advantage_wrong(successes, group_size, ddof):
    """A of a failed rollout among k of G: -sqrt((G-ddof) k/(G (G-k))), eps 0, 1 <= k <= G-1."""
    return -(((group_size - ddof) * successes / (group_size * (group_size - successes))) ** 0.5)

"""Populations of prompts: Beta, points, logit-normal, mixtures, and real pass rates."""

from ebpo_sim.worlds.base import Beta, LogitNormal, Mixture, Points, World, intra_class_correlation, quantiles
from ebpo_sim.worlds.counts import Counts, VarianceComponents, deconvolve, variance_components
from ebpo_sim.worlds.grammar import parse_world, ratio_world, read_counts, register_world, world_counts
from ebpo_sim.worlds.observed import SOURCES, observed_counts, observed_names, observed_source
from ebpo_sim.worlds.recorded import Recorded, recorded, recorded_names, recorded_source

__all__ = [
    "SOURCES",
    "Beta",
    "Counts",
    "LogitNormal",
    "Mixture",
    "Points",
    "Recorded",
    "VarianceComponents",
    "World",
    "deconvolve",
    "intra_class_correlation",
    "observed_counts",
    "observed_names",
    "observed_source",
    "parse_world",
    "quantiles",
    "ratio_world",
    "read_counts",
    "recorded",
    "recorded_names",
    "recorded_source",
    "register_world",
    "variance_components",
    "world_counts",
]

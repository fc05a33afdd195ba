"""Populations of prompts: Beta, points, logit-normal, mixtures, and real pass rates."""

from ebpo_sim.worlds.base import Beta as Beta
from ebpo_sim.worlds.base import LogitNormal as LogitNormal
from ebpo_sim.worlds.base import Mixture as Mixture
from ebpo_sim.worlds.base import Points as Points
from ebpo_sim.worlds.base import World as World
from ebpo_sim.worlds.base import intra_class_correlation as intra_class_correlation
from ebpo_sim.worlds.base import quantiles as quantiles
from ebpo_sim.worlds.counts import Counts as Counts
from ebpo_sim.worlds.counts import VarianceComponents as VarianceComponents
from ebpo_sim.worlds.counts import deconvolve as deconvolve
from ebpo_sim.worlds.counts import variance_components as variance_components
from ebpo_sim.worlds.grammar import parse_world as parse_world
from ebpo_sim.worlds.grammar import ratio_world as ratio_world
from ebpo_sim.worlds.grammar import read_counts as read_counts
from ebpo_sim.worlds.grammar import register_world as register_world
from ebpo_sim.worlds.grammar import world_counts as world_counts
from ebpo_sim.worlds.observed import SOURCES as SOURCES
from ebpo_sim.worlds.observed import observed_counts as observed_counts
from ebpo_sim.worlds.observed import observed_names as observed_names
from ebpo_sim.worlds.observed import observed_source as observed_source
from ebpo_sim.worlds.recorded import Recorded as Recorded
from ebpo_sim.worlds.recorded import recorded as recorded
from ebpo_sim.worlds.recorded import recorded_names as recorded_names
from ebpo_sim.worlds.recorded import recorded_source as recorded_source

"""Learning weights and their transformation together (L2, Shi et al. 2023, and past it): see `refine`."""

from tersor.joint.recipe import BEST, L2_PAPER, Recipe
from tersor.joint.refine import Refined, refine

__all__ = ["BEST", "L2_PAPER", "Recipe", "Refined", "refine"]

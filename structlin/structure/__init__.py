"""The algebra of linear maps of one to four factors: index, theta, sizes, plan, families, taxonomy. No torch.

The layer, the planner, a run's record and a figure all ask these; nothing is counted or rounded twice.
"""

from structlin.structure.catalog import CATALOG, PAPER_IDS, lookup
from structlin.structure.families import FAMILIES, theta_of
from structlin.structure.naming import name_of
from structlin.structure.plan import LinearPlan, plan_linear, plan_theta
from structlin.structure.sizes import ROUNDINGS, Sizes, factorise
from structlin.structure.theta import Term, Theta

__all__ = [
    "CATALOG",
    "FAMILIES",
    "LinearPlan",
    "PAPER_IDS",
    "ROUNDINGS",
    "Sizes",
    "Term",
    "Theta",
    "factorise",
    "lookup",
    "name_of",
    "plan_linear",
    "plan_theta",
    "theta_of",
]

"""Which structure will be best at a compute? Arms, rungs, predictors, promotion, proposals, report; without torch."""

"""The reading wing: from a table of evaluations to scaling laws, multipliers, designs and a report. No torch.

choices, where       what the user asks for           source, points     which evaluations count, and why
objective, model, solver, anchored                    the fitter: global minimum with a certificate
frontier, isoflop, parametric, multiplier             the fits            bootstrap   resampling whole runs
joint, agreement, backtest, sensitivity, resources    what the fits are worth            design   what to run next
verdict, predictions, forecasts, answers   what is said of them
fit, run             everything in order              record, console, figures, charts, page   what is shown
"""

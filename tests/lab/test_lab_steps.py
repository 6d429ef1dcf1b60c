"""The grid in steps gives the rows of the grid, and lets its caller pause often."""

from __future__ import annotations

from builders import shipped

from worker.jobs.spec import OnDelay
from worker.lab.evaluate import grid, grid_in_steps
from worker.lab.synthetic import delayed_model, draw


def test_the_rows_are_those_of_the_grid_with_a_pause_every_few_jobs():
    catalogue = shipped()
    model = delayed_model(catalogue)
    cases = draw(200, 3, model, catalogue.faster(model)).cases
    actions, thresholds = ("wait", "switch", "draft"), (15.0, 60.0)
    rules = [
        OnDelay(action=action, after_seconds=after, silence_seconds=120.0) for action in actions for after in thresholds
    ]
    steps = list(grid_in_steps(cases, catalogue, rules))
    assert [row for row in steps if row is not None] == grid(cases, catalogue, actions, thresholds, 120.0)
    assert steps.count(None) >= 200 / 20 * (len(rules) + 1)


def test_without_jobs_each_rule_has_a_row_of_nothing():
    rows = [row for row in grid_in_steps([], shipped(), [OnDelay()]) if row is not None]
    assert [(row.jobs, row.substituted) for row in rows] == [(0, 0.0)]

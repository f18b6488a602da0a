"""The course of the learning rate within a phase, as a factor of the highest rate at each step."""

import math

from braintumor_kit.recipe.tables import ScheduleTable

ONE_CYCLE_RISE = 0.3
"""Share of the phase in which one_cycle rises."""

ONE_CYCLE_START = 1 / 25
"""Where one_cycle starts, over its highest rate (Smith and Topin 2018, arXiv 1708.07120, as torch has it)."""


def rate_factor(schedule: ScheduleTable, step: int, steps_per_epoch: int, steps: int) -> float:
    """Learning rate over the highest rate at a step.

    Args:
        step: 0 at the phase's first step.
        steps: of the whole phase.
    """
    warmup = schedule.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - 1 - warmup, 1)
    match schedule.name:
        case "step":
            return schedule.factor ** (step // steps_per_epoch // schedule.step_epochs)
        case "cosine":
            return _cosine(1.0, schedule.final_fraction, done)
        case "one_cycle":
            if done < ONE_CYCLE_RISE:
                return _cosine(ONE_CYCLE_START, 1.0, done / ONE_CYCLE_RISE)
            return _cosine(1.0, schedule.final_fraction, (done - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
        case _:
            return 1.0


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2

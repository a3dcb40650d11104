"""Time as the measure of a run: the plan, the learning rate that follows from it, and what is due when."""

import math
from itertools import pairwise

import pytest

from zoo.contract.recipe import Training
from zoo.training import budget
from zoo.training import trainer as training


class Machine:
    """A clock that steps and checkpoints move."""

    def __init__(self, each, save=0.0):
        self.time, self.each, self.cost = 100.0, each, save

    def __call__(self):
        return self.time


def drive(seconds, each, *, rest=0.0, warmup=10, decay=0.4, save=0.0, before=0.0, step=0, plans=(), lost=0.0, slow_start=False):
    """A run of so many seconds with steps of each(step) seconds: (plans, learning rates of its steps, seconds that it took)."""
    options, machine = Training(lr=1.0, warmup=warmup, decay=decay), Machine(each)
    clock = budget.Clock(before=before, now=machine)
    machine.time += lost
    watch = budget.Budget(seconds, clock, decay, lambda: rest, slow_start)
    watch.ready(step)
    plans, rates = list(plans), []
    while not plans or step < plans[-1][1]:
        rates.append(budget.learning_rate(step, plans, options))
        machine.time += each(step)
        step += 1
        if (plan := watch.look(step, plans)) is not None:
            plans.append(plan)
            with clock.doing("save"):
                machine.time += save
        assert step < 100_000
    return plans, rates, clock.seconds


def test_an_even_machine_ends_in_time_with_one_plan_and_the_rate_of_a_run_of_so_many_steps():
    plans, rates, took = drive(60, lambda step: 0.1, rest=3.0)
    assert len(plans) == 1 and 0.97 * 57 < took <= 57
    steps = plans[0][1]
    options = Training(lr=1.0, warmup=10, decay=0.4)
    assert rates == [training.learning_rate(k, steps, options) for k in range(steps)]
    assert rates[-1] == pytest.approx(1 / (0.4 * steps))


@pytest.mark.parametrize(
    ("what", "each"),
    [
        ("slower from the middle on", lambda k: 0.1 if k < 300 else 0.25),
        ("faster from the middle on", lambda k: 0.1 if k < 300 else 0.04),
        ("slower near the end", lambda k: 0.1 if k < 500 else 0.3),
        ("a first step that takes long", lambda k: 5.0 if k == 0 else 0.1),
        ("noise", lambda k: 0.05 + 0.1 * ((k * 7919) % 13) / 12),
        ("a pause near the end", lambda k: 4.0 if k == 550 else 0.1),
    ],
)
def test_the_rate_falls_to_zero_in_time_whatever_the_machine_does(what, each):
    plans, rates, took = drive(60, each, save=0.05)
    assert 0.93 * 60 < took <= 60.6, plans
    assert rates[-1] < 0.07 and max(rates) == 1.0
    top = rates.index(1.0)
    assert all(a >= b for a, b in pairwise(rates[top:])), "once it falls it falls"
    assert [at for at, _ in plans] == sorted({at for at, _ in plans})


def test_a_machine_that_stops_ends_late_yet_at_a_low_rate_and_with_few_plans():
    plans, rates, took = drive(20, lambda k: 30.0 if k == 120 else 0.1)
    assert took < 44 and rates[-1] <= 0.5 and len(plans) <= 3


def test_a_step_longer_than_the_budget_is_a_run_of_two():
    plans, rates, _ = drive(1.0, lambda k: 3.0)
    assert plans == [(1, 2)] and len(rates) == 2


def test_a_slow_first_step_is_not_what_a_run_is_planned_by():
    plans, rates, took = drive(120, lambda k: 25.0 if k == 0 else 2.0)
    assert plans[0][0] == 2 and plans[0][1] > 40 and took <= 121 and rates[-1] < 0.1


def test_the_warm_up_of_a_short_run_is_shortened():
    plans, rates, _ = drive(30, lambda k: 0.1, warmup=200)
    at, steps = plans[0]
    assert rates[at - 1] == at / 200 and max(rates) == 1.0
    assert rates.index(1.0) == pytest.approx(budget.MOST_WARMUP * steps, abs=2)
    assert all(a <= b for a, b in pairwise(rates[: int(0.2 * steps)]))


def test_what_is_left_of_the_budget_counts_where_a_run_goes_on():
    plans, rates, took = drive(60, lambda k: 0.1, before=30.0, step=300, plans=[(20, 590)], lost=5.0)
    assert 57 < took <= 60.5 and len(plans) == 2 and plans[1][1] < 560
    assert rates[-1] < 0.02


def test_a_plan_bends_what_falls_already_and_moves_what_does_not():
    options = Training(lr=1.0, warmup=0, decay=0.5)

    def rates(*plans):
        return [budget.learning_rate(k, plans, options) for k in range(plans[-1][1])]

    assert rates((0, 100), (20, 60)) == rates((0, 60)), "nothing falls yet"
    bent = rates((0, 100), (80, 90))
    assert bent[:80] == rates((0, 100))[:80] and bent[80] == pytest.approx(0.4) and bent[89] == pytest.approx(0.04)
    longer = rates((0, 100), (80, 160))
    assert longer[80] == pytest.approx(0.4) and longer[159] == pytest.approx(0.4 / 80)
    at_once = rates((0, 100), (40, 60))  # its way down should have begun at step 30
    assert at_once[40] == 1.0 and at_once[50] == 0.5
    assert rates((0, 10)) == [training.learning_rate(k, 10, options) for k in range(10)]


def test_a_rate_without_decay_stays():
    options = Training(lr=1.0, warmup=0, decay=0.0)
    assert {budget.learning_rate(k, [(0, 50), (30, 40)], options) for k in range(40)} == {1.0}


def test_previews_come_after_about_a_minute_and_at_growing_distances():
    times, found = budget.preview_times(None), []
    for second in range(3600):
        if times.due(second):
            found.append(second)
            times.done(second)
    assert found == [55, 120, 240, 480, 960, 1920]
    assert budget.preview_times(60.0).next == 24.0
    again = budget.preview_times(None)
    again.done(300.0)  # resumed
    assert again.next == 480.0 and again.until(1000.0) == 2


def test_checkpoints_come_every_two_minutes_at_first_and_at_most_ten_apart():
    times, found = budget.save_times(None), [0.0]
    for second in range(4 * 3600):
        if times.due(second):
            found.append(second)
            times.done(second)
    gaps = [b - a for a, b in pairwise(found)]
    assert gaps[:5] == [120] * 5 and max(gaps) <= 600 and gaps == sorted(gaps) and gaps[-1] > 590
    assert budget.save_times(120.0).next == 30.0


def test_what_is_done_between_steps_is_not_taken_for_steps():
    machine = Machine(None)
    clock = budget.Clock(now=machine)
    clock.mark(0)
    machine.time += 4.0
    with clock.doing("preview"):
        machine.time += 7.0
    clock.mark(2)
    assert clock.measured() == (2, 4.0) and clock.cost == {"preview": 7.0} and clock.seconds == 11.0
    assert not math.isnan(budget.Budget(math.inf, clock, 0.4, lambda: 0.0).each())


@pytest.mark.parametrize("plans", [[(0, 100)], [(10, 1000), (700, 900)], [(0, 10**12)], [(5, 10)]])
def test_where_the_rate_begins_to_fall_is_found_at_once_in_a_run_of_any_length(plans):
    first = plans[-1][0]
    found = budget.begin_of_fall(first, plans, 0.4)
    assert budget.falls(found, plans, 0.4) and (found == first or not budget.falls(found - 1, plans, 0.4))
    assert budget.begin_of_fall(3, [(0, 10)], 0.0) == 10


@pytest.mark.parametrize("compiling", [54.0, 30.0, 8.0])
def test_steps_that_compile_make_no_plan(compiling):
    """On a GPU a first step of 54 s once made a plan of two steps for 100 seconds."""
    plans, rates, took = drive(100, lambda k: compiling if k == 0 else 0.05, slow_start=True)
    assert plans[0][0] >= budget.WARM
    assert 0.9 * 100 < took <= 100
    assert len(rates) > 0.9 * (100 - compiling) / 0.05
    assert rates[-1] < 0.02


def test_a_plan_by_slow_steps_is_made_anew_before_the_rate_falls():
    _, rates, took = drive(100, lambda k: 3.0 if k < 8 else 0.01, slow_start=True)
    assert took > 95 and len(rates) > 4000
    assert max(rates[len(rates) // 4 : len(rates) // 2]) == 1.0


def test_a_budget_without_end_is_a_run_of_the_most_steps_there_are():
    machine = Machine(lambda step: 0.1)
    watch = budget.Budget(1e300, budget.Clock(now=machine), 0.4, lambda: 0.0)
    plan = None
    for step in range(100):
        machine.time += 0.1
        plan = plan or watch.look(step + 1, [])
    assert plan is not None and plan[1] == budget.ENDLESS
    assert budget.begin_of_fall(plan[0], [plan], 0.4) == pytest.approx(0.6 * budget.ENDLESS)

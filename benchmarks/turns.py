"""Times of several forms that take turns, so that what else the machine does falls on all of them."""

import random
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from benchmarks.forms import Call

FormT = TypeVar("FormT", bound=Hashable)

# Threads of the library that ran last wait for work in a loop for some milliseconds before they sleep.
REST_S = 0.1
# A long call is its own warm-up, and few of them say enough.
LONG_S, ENOUGH_S = 2.0, 20.0


def take_turns(
    calls: Mapping[FormT, Call],
    *,
    rounds: int,
    seed: int,
    rest_s: float = REST_S,
    long_s: float = LONG_S,
    enough_s: float = ENOUGH_S,
    known: Mapping[FormT, float] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    done: Callable[[FormT], None] = lambda form: None,
) -> dict[FormT, list[float]]:
    """Seconds of each form in every round.

    Args:
        calls: the forms.
        rounds: in each of them every form runs twice in a row, and the second call counts.
        seed: of the order, which is another one in every round.
        rest_s: pause before each form.
        long_s: a form that took as long runs once.
        enough_s: a form whose calls took as long together takes no further turns.
        known: seconds of a call, where one was made before.
        clock: gives seconds.
        done: called after each form.
    """
    order, shuffler = list(calls), random.Random(seed)  # noqa: S311
    times: dict[FormT, list[float]] = {form: [] for form in calls}
    for _ in range(rounds):
        shuffler.shuffle(order)
        for form in order:
            if sum(times[form]) < enough_s:
                time.sleep(rest_s)
                if max(times[form], default=(known or {}).get(form, 0)) < long_s:
                    calls[form]()
                start = clock()
                calls[form]()
                times[form].append(clock() - start)
            done(form)
    return times

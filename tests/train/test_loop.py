from lmjax.train import loop


def run(stop, *, start=0, interrupted=lambda events: False):
    """What happened, in order, with a step that takes no time."""
    events = []

    def step(number, state, batch):
        events.append(("step", number, batch))
        return state + batch, {"number": number}

    def note(name):
        return lambda number, state, metrics: events.append((name, number, state))

    state, last = loop.run(
        0,
        iter(range(start, 100)),
        step,
        [loop.Every(2, note("log")), loop.Every(3, note("save"))],
        start=start,
        stop=stop,
        interrupted=lambda: interrupted(events),
    )
    return state, last, events


def test_callbacks_fire_when_due_and_at_the_end_in_order():
    state, last, events = run(5)
    assert (state, last) == (sum(range(5)), 5)
    fired = [(name, number) for name, number, _ in events if name != "step"]
    assert fired == [("log", 2), ("save", 3), ("log", 4), ("log", 5), ("save", 5)]


def test_starts_in_the_middle_and_may_have_nothing_to_do():
    assert [e[1] for e in run(6, start=4)[2] if e[0] == "step"] == [5, 6]
    assert run(4, start=4) == (0, 4, [])


def test_an_interruption_ends_the_run_after_its_step():
    _, last, events = run(50, interrupted=lambda events: len(events) >= 4)
    assert last < 50
    assert events[-1][1] == last


def test_a_step_that_gives_up_leaves_the_state_of_the_one_before():
    def step(number, state, batch):
        if number == 4:
            raise loop.StoppedError
        return state + batch, {}

    seen = []
    callbacks = [loop.Every(1, lambda number, state, metrics: seen.append(number))]
    assert loop.run(0, iter(range(9)), step, callbacks, start=0, stop=9) == (0 + 1 + 2, 3)
    assert seen == [1, 2, 3]

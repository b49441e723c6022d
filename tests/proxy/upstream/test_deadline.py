"""A deadline that moves without a timer for each move."""

from proxy.upstream.deadline import Deadline


class ManualLoop:
    """Time and timers by hand."""

    def __init__(self):
        self.now = 0.0
        self.timers = []
        self.armed = 0

    def time(self):
        return self.now

    def call_later(self, delay_s, callback):
        timer = ManualTimer(self.now + delay_s, callback)
        self.timers.append(timer)
        self.armed += 1
        return timer

    def advance(self, to):
        while due := [t for t in self.timers if t.at <= to]:
            timer = min(due, key=lambda t: t.at)
            self.timers.remove(timer)
            self.now = max(self.now, timer.at)
            if not timer.is_cancelled:
                timer.callback()
        self.now = to


class ManualTimer:
    def __init__(self, at, callback):
        self.at = at
        self.callback = callback
        self.is_cancelled = False

    def cancel(self):
        self.is_cancelled = True


def make():
    loop = ManualLoop()
    fired = []
    return loop, Deadline(loop, lambda: fired.append(loop.now)), fired


def test_it_fires_once_at_the_instant_and_not_before():
    loop, deadline, fired = make()
    deadline.set(10)
    loop.advance(9.999)
    assert fired == []
    loop.advance(100)
    assert fired == [10]


def test_moving_on_arms_no_timer_and_fires_at_the_last_instant():
    loop, deadline, fired = make()
    for second in range(50):
        loop.advance(second / 10)
        deadline.set(10)
    assert loop.armed == 1
    loop.advance(14.8)
    assert fired == []
    loop.advance(15)
    assert [round(at, 3) for at in fired] == [14.9]
    assert loop.armed == 2


def test_moving_forward_fires_at_the_earlier_instant():
    loop, deadline, fired = make()
    deadline.set(100)
    deadline.set(1)
    loop.advance(200)
    assert fired == [1]


def test_cleared_it_does_not_fire_and_can_be_set_again():
    loop, deadline, fired = make()
    deadline.set(1)
    deadline.clear()
    loop.advance(5)
    assert fired == []
    deadline.set(1)
    loop.advance(7)
    assert fired == [6]


def test_closed_it_does_not_fire():
    loop, deadline, fired = make()
    deadline.set(1)
    deadline.close()
    loop.advance(5)
    assert fired == []

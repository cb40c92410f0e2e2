"""Work that is waited for a while at a time."""

from __future__ import annotations

import gevent
import pytest

from app.runtime.work import Work


class Interrupted(BaseException):
    """Not an `Exception`."""


def test_work_that_is_done_in_time_is_done_at_the_first_wait() -> None:
    work = Work(lambda: gevent.sleep(0) or "done")
    assert not work.is_done and work.wait(60) and work.result() == "done"


def test_work_goes_on_while_nobody_waits() -> None:
    turns = []

    def run() -> str:
        for turn in range(3):
            gevent.sleep(0.01)
            turns.append(turn)
        return "done"

    work = Work(run)
    assert not work.wait(0.001) and not work.wait(0.001)
    gevent.sleep(0.1)
    assert turns == [0, 1, 2] and work.is_done and work.wait(60) and work.result() == "done"


def test_who_waits_again_is_woken_by_the_end() -> None:
    work = Work(lambda: gevent.sleep(0.02) or "done")
    assert not work.wait(0.001)
    assert work.wait(60) and work.result() == "done"


@pytest.mark.parametrize("error", [ValueError("no"), Interrupted("gone")])
def test_what_the_work_raises_is_raised_to_whoever_asks(error: BaseException) -> None:
    def run() -> None:
        gevent.sleep(0)
        raise error

    work = Work(run)
    assert work.wait(60)
    with pytest.raises(type(error)):
        work.result()


def test_many_wait_at_once_each_for_its_own() -> None:
    def one(n: int) -> int:
        work = Work(lambda: gevent.sleep(0.001 * (n % 7)) or n)
        while not work.wait(0.002):
            continue
        return work.result()

    waiting = [gevent.spawn(one, n) for n in range(200)]
    gevent.joinall(waiting, raise_error=True)
    assert [one.value for one in waiting] == list(range(200))

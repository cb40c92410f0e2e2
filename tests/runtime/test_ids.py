"""Names: UUIDv7s that sort by when they were made, also within one millisecond."""

from __future__ import annotations

import time
import uuid

from app import clock
from app.runtime.ids import moment_of, new_id


def test_an_id_is_a_uuid_of_version_7_that_tells_its_millisecond() -> None:
    before = clock.now_ms()
    made = uuid.UUID(new_id())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= clock.now_ms()


def test_what_is_made_later_sorts_later() -> None:
    made = []
    for _ in range(1_000):
        made.append(new_id())
        stop = time.perf_counter_ns() + 1_000
        while time.perf_counter_ns() < stop:
            pass
    assert made == sorted(made)
    assert len({id[19:] for id in made}) == 1_000


def test_an_id_tells_its_moment_and_other_texts_none() -> None:
    before = clock.now_ms()
    told = moment_of(new_id())
    assert told is not None and before <= told <= clock.now_ms()
    for text in ("", "nothing", str(uuid.uuid4()), str(uuid.UUID(int=0)), new_id().upper() + " "):
        assert moment_of(text) is None

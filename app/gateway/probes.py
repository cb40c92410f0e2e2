"""What asks a dead upstream in place of a call: its list of models, which is free and costs no client its deadline.

A breaker whose deployment hangs gives its probe to one call. An upstream that is dead would let that client wait in vain, who may
have waited before. So it is asked for its list first: only what answers that, or has none, is tried by a call.
"""

from __future__ import annotations

from app.gateway.breakers import Breakers
from app.providers.base import Adapter, UpstreamError
from app.runtime.work import Work

PATIENT_S = 2.0  # for a client to wait for the list where no other deployment is well


def may_be_tried(breakers: Breakers, name: str, adapter: Adapter, wait_s: float) -> bool:
    """Whether the call that has the probe of the breaker `name` is to try it. What hangs is asked for its list of models: the
    call waits so long for the answer, and else leaves the probe to another once there is one."""
    trip = breakers.trips.get(name)
    if trip is None or not trip.hangs or trip.listed:
        return True
    question = _Question(breakers, name, adapter)
    if Work(question.ask).wait(wait_s):
        return question.is_answered
    question.is_waited_for = False
    return False


class _Question:
    def __init__(self, breakers: Breakers, name: str, adapter: Adapter) -> None:
        self.is_waited_for = True
        self.is_answered = False
        self._breakers, self._name, self._adapter = breakers, name, adapter

    def ask(self) -> None:
        error = None
        try:
            self._adapter.list_models()
        except UpstreamError as failure:
            error = failure
        self.is_answered = self._breakers.listed(self._name, error)
        if self.is_answered and not self.is_waited_for:
            self._breakers.give_back(self._name)

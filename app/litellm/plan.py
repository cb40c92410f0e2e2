"""What must be written where, so that Portico and LiteLLM are in step: a pure function of both sides and of the last sync.

A thing of one side is the same as one of the other if a `Link` says so, else if both have a `match` in common, the first
that they have. Each field is compared with what its own side had at the last sync, so that a value which the other side can
only hold differently (a rounded time) is no change. Changed on one side, it is written to the other; changed on both, the
policy decides, or it is a conflict. What is gone from one side is deleted on the other only by a policy that says so, and it
is never created again. If half or more of what was linked is gone at once, each of these deletions is a conflict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

Entity = Literal["models", "users", "teams", "members", "keys"]
ENTITIES: tuple[Entity, ...] = get_args(Entity)  # in the order in which they are created; they are deleted in reverse
Side = Literal["portico", "litellm"]
Act = Literal["create", "update", "delete", "conflict"]
Direction = Literal["none", "pull", "push", "both"]
Winner = Literal["litellm", "portico"]
Fields = dict[str, Any]

FEWEST_GUARDED = 10  # things that must have been in step before the loss of half of them is doubted
GONE = "gone"  # the name under which a conflict about a deletion is decided


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What is done about one kind of things. `pull` writes to Portico, `push` to LiteLLM."""

    create: Direction = "both"
    conflict: Literal["litellm", "portico", "merge", "ask"] = "ask"
    delete: Direction = "none"

    def creates(self, on: Side) -> bool:
        return self.create in ("both", _towards(on))

    def deletes(self, on: Side) -> bool:
        return self.delete in ("both", _towards(on))


DEFAULTS: dict[Entity, Policy] = {
    "models": Policy(create="pull"),
    "users": Policy(),
    "teams": Policy(),
    "members": Policy(),
    "keys": Policy(create="none"),
}


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    """A model, user, team, member or key of one side.

    `matches` are texts by which it is found on the other side before there is a link. Fields that one side can't tell are
    left out, and are not compared. `stays` says why it is not created on the other side; `fixed` that its own side can't
    change it.
    """

    id: str
    name: str
    fields: Fields
    matches: tuple[str, ...] = ()
    stays: str | None = None
    fixed: bool = False


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Two things that are the same, with the fields of each side when they were last in step. `kept` says that one of them
    is gone, and that this was decided to be left so."""

    portico_id: str
    litellm_id: str
    portico: Fields = {}
    litellm: Fields = {}
    kept: bool = False


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One field on both sides, and as it was at the last sync; None if it is not set or was not known."""

    name: str
    portico: Any
    litellm: Any
    last: Any


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Something to do. `side` is where it is written, None for a conflict; `reason` says why a conflict can't be decided by
    fields."""

    entity: Entity
    act: Act
    side: Side | None
    name: str
    portico_id: str | None = None
    litellm_id: str | None = None
    changes: tuple[Change, ...] = ()
    reason: str | None = None

    def values(self) -> Fields:
        """What is written: the other side's values, by field."""
        source = "litellm" if self.side == "portico" else "portico"
        return {change.name: getattr(change, source) for change in self.changes}


Decisions = Mapping[tuple[str | None, str | None], Mapping[str, Winner]]  # by Portico's and LiteLLM's id, then by field


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from a comparison. `links` are those that are new or have other last states, because both sides agree;
    `forgotten` are links of which both things are gone."""

    steps: tuple[Step, ...]
    links: tuple[Link, ...]
    forgotten: tuple[Link, ...]


def compare(
    entity: Entity,
    portico: Iterable[Thing],
    litellm: Iterable[Thing],
    links: Iterable[Link],
    policy: Policy,
    decisions: Decisions = {},  # noqa: B006 - it is only read
    *,
    is_doubtful: bool = False,
) -> Outcome:
    """What must be done about one kind of things. With `is_doubtful` so much is gone that no deletion is obeyed."""
    ours, theirs = ({thing.id: thing for thing in side} for side in (portico, litellm))
    known = tuple(links)
    twins, rest = _linked(ours, theirs, known)
    _match(ours, theirs, twins, rest)
    steps: list[Step] = []
    agreed: list[Link] = []
    for our, their, link in twins:
        found, after = _meet(entity, our, their, link, policy, decisions.get((our.id, their.id), {}))
        steps += found
        if after != link:
            agreed.append(after)
    lone = [link for link in rest if (link.portico_id in ours) != (link.litellm_id in theirs)]
    is_doubtful = is_doubtful or lost_too_many(ours, theirs, known)
    for link in lone:
        step, kept = _lose(entity, ours, theirs, link, policy, decisions, is_doubtful)
        if step is not None:
            steps.append(step)
        if kept and not link.kept:
            agreed.append(msgspec.structs.replace(link, kept=True))
    taken = {link.portico_id for link in rest}, {link.litellm_id for link in rest}
    paired = {our.id for our, _, _ in twins}, {their.id for _, their, _ in twins}
    steps += _creations(entity, ours, "litellm", policy, taken[0] | paired[0])
    steps += _creations(entity, theirs, "portico", policy, taken[1] | paired[1])
    replaced = {id for our, their, link in twins if link for id in _changed_ids(our, their, link)}
    gone = [link for link in rest if link.portico_id not in ours and link.litellm_id not in theirs]
    old = [link for link in known if (link.portico_id, link.litellm_id) in replaced]
    return Outcome(steps=tuple(steps), links=tuple(agreed), forgotten=(*gone, *old))


def lost_too_many(portico: Iterable[str], litellm: Iterable[str], links: Iterable[Link]) -> bool:
    """Whether half or more of what was linked is gone from one side, of at least `FEWEST_GUARDED` things."""
    counted, lost = count_lost(portico, litellm, links)
    return counted >= FEWEST_GUARDED and 2 * lost >= counted


def count_lost(portico: Iterable[str], litellm: Iterable[str], links: Iterable[Link]) -> tuple[int, int]:
    """How many links are counted, and of how many one side is gone."""
    ours, theirs = frozenset(portico), frozenset(litellm)
    there = [(link.portico_id in ours, link.litellm_id in theirs) for link in links if not link.kept]
    return sum(map(any, there)), sum(one != other for one, other in there)


def _towards(side: Side) -> str:
    return "pull" if side == "portico" else "push"


Twin = tuple[Thing, Thing, Link | None]


def _linked(
    ours: Mapping[str, Thing], theirs: Mapping[str, Thing], links: Sequence[Link]
) -> tuple[list[Twin], list[Link]]:
    twins: list[Twin] = []
    rest = []
    for link in links:
        if link.portico_id in ours and link.litellm_id in theirs:
            twins.append((ours[link.portico_id], theirs[link.litellm_id], link))
        else:
            rest.append(link)
    return twins, rest


def _match(ours: Mapping[str, Thing], theirs: Mapping[str, Thing], twins: list[Twin], rest: list[Link]) -> None:
    """Pair what no link pairs. A thing whose twin is gone is paired with one that took its twin's place."""
    done = {our.id for our, _, _ in twins}, {their.id for _, their, _ in twins}
    lone = {link.portico_id: link for link in rest}, {link.litellm_id: link for link in rest}
    index = _by_match(thing for thing in theirs.values() if thing.id not in done[1])
    unique = _by_match(thing for thing in ours.values() if thing.id not in done[0])
    for our in ours.values():
        if our.id in done[0]:
            continue
        for match in our.matches:
            their = index.get(match)
            if their is None or their.id in done[1] or unique.get(match) is not our:
                continue
            link = lone[0].get(our.id) or lone[1].get(their.id)
            twins.append((our, their, link))
            done[0].add(our.id)
            done[1].add(their.id)
            for old in (lone[0].get(our.id), lone[1].get(their.id)):
                if old in rest:
                    rest.remove(old)
            break


def _by_match(things: Iterable[Thing]) -> dict[str, Thing]:
    """Things by their matches; one that several have is nobody's."""
    found: dict[str, Thing] = {}
    several = set()
    for thing in things:
        for match in dict.fromkeys(thing.matches):
            if match in found:
                several.add(match)
            found[match] = thing
    return {match: thing for match, thing in found.items() if match not in several}


def _meet(
    entity: Entity, our: Thing, their: Thing, link: Link | None, policy: Policy, decided: Mapping[str, Winner]
) -> tuple[list[Step], Link]:
    """The steps of two things that are the same, and their link with what both agree on."""
    before = link or Link(portico_id=our.id, litellm_id=their.id)
    last = dict(before.portico), dict(before.litellm)
    to: dict[Side | None, list[Change]] = {"portico": [], "litellm": [], None: []}
    for name in our.fields:
        if name not in their.fields:
            continue
        here, there = our.fields[name], their.fields[name]
        if here == there:
            last[0][name] = last[1][name] = here
            continue
        side = _winner_of(name, here, there, before, policy, decided)
        if side == "same" or (our.fixed if side == "litellm" else side == "portico" and their.fixed):
            continue
        if side is not None:
            written: Side = "portico" if side == "litellm" else "litellm"
            to[written].append(_change(name, here, there, before))
        else:
            to[None].append(_change(name, here, there, before))
    steps = [
        Step(
            entity=entity,
            act="conflict" if side is None else "update",
            side=side,
            name=our.name,
            portico_id=our.id,
            litellm_id=their.id,
            changes=tuple(changes),
        )
        for side, changes in to.items()
        if changes
    ]
    return steps, Link(portico_id=our.id, litellm_id=their.id, portico=last[0], litellm=last[1])


def _winner_of(
    name: str, here: Any, there: Any, link: Link, policy: Policy, decided: Mapping[str, Winner]
) -> Winner | Literal["same"] | None:
    """Whose value holds where they differ; None for a conflict, "same" if neither changed since the last sync."""
    is_known = name in link.portico and name in link.litellm
    if is_known:
        we, they = here != link.portico[name], there != link.litellm[name]
        if not we and not they:
            return "same"
        if we != they:
            return "portico" if we else "litellm"
    if name in decided:
        return decided[name]
    if policy.conflict in ("litellm", "portico"):
        return policy.conflict
    if policy.conflict == "merge" and not is_known and (_is_unset(here) != _is_unset(there)):
        return "litellm" if _is_unset(here) else "portico"
    return None


def _is_unset(value: Any) -> bool:
    return value is None or value == []


def _change(name: str, here: Any, there: Any, link: Link) -> Change:
    return Change(name=name, portico=here, litellm=there, last=link.portico.get(name))


def _lose(
    entity: Entity,
    ours: Mapping[str, Thing],
    theirs: Mapping[str, Thing],
    link: Link,
    policy: Policy,
    decisions: Decisions,
    is_doubtful: bool,
) -> tuple[Step | None, bool]:
    """What to do about a thing whose twin is gone, and whether it is now left as it is for good."""
    is_here = link.portico_id in ours
    left = ours[link.portico_id] if is_here else theirs[link.litellm_id]
    side: Side = "portico" if is_here else "litellm"
    step = Step(
        entity=entity,
        act="delete",
        side=side,
        name=left.name,
        portico_id=link.portico_id,
        litellm_id=link.litellm_id,
    )
    decided = decisions.get((link.portico_id, link.litellm_id), {}).get(GONE)
    if link.kept or decided == side:  # where it still is, it stays
        return None, True
    if decided is not None:
        return (None, True) if left.fixed else (step, False)
    if is_doubtful:
        reason = "So much is gone at once that this deletion is not obeyed. Decide it, or correct the other side."
        change = Change(name=GONE, portico=is_here, litellm=not is_here, last=None)
        return msgspec.structs.replace(step, act="conflict", side=None, changes=(change,), reason=reason), False
    return (step, False) if policy.deletes(side) and not left.fixed else (None, False)


def _creations(
    entity: Entity, things: Mapping[str, Thing], on: Side, policy: Policy, known: set[str]
) -> Iterable[Step]:
    if not policy.creates(on):
        return
    fresh = [thing for thing in things.values() if thing.id not in known and thing.stays is None]
    named = Counter(thing.matches[-1] for thing in fresh if thing.matches)
    for thing in fresh:
        ids = {"portico_id": thing.id} if on == "litellm" else {"litellm_id": thing.id}
        is_one = not thing.matches or named[thing.matches[-1]] == 1
        yield Step(
            entity=entity,
            act="create" if is_one else "conflict",
            side=on if is_one else None,
            name=thing.name,
            changes=tuple(
                Change(
                    name=name,
                    portico=value if on == "litellm" else None,
                    litellm=value if on == "portico" else None,
                    last=None,
                )
                for name, value in thing.fields.items()
            ),
            reason=None if is_one else "Several things have this name. Give each its own.",
            **ids,
        )


def _changed_ids(our: Thing, their: Thing, link: Link) -> Iterable[tuple[str, str]]:
    if (link.portico_id, link.litellm_id) != (our.id, their.id):
        yield link.portico_id, link.litellm_id

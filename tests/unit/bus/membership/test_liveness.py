"""Which life of a runner counts, when several are heard."""

from __future__ import annotations

from bus.membership.liveness import Liveness

LEASE = 6.0


def test_another_life_that_everybody_hears_is_asked_before_it_ends_the_one_we_know() -> None:
    liveness = Liveness("me#1", lease=LEASE, patience=30.0)
    assert liveness.seen("r", "r#old", 0.0, 1, to_us=False).ask
    for now, ask in ((0.1, True), (0.2, False), (2.3, True)):
        reaction = liveness.seen("r", "r#new", now, 1, to_us=False)
        assert (reaction.ask, reaction.ignore, reaction.gone) == (ask, True, None)
    assert liveness.seen("r", "r#third", 2.4, 1, to_us=False).ask
    assert liveness.is_alive("r#old")
    reaction = liveness.seen("r", "r#new", 2.5, to_us=True)
    assert reaction.gone is not None
    assert (reaction.gone.address, reaction.ignore) == ("r#old", False)
    assert liveness.is_alive("r#new")
    assert liveness.seen("r", "r#old", 2.6, to_us=True).ignore, "it is over for good"


def test_a_life_that_is_silent_is_over_only_when_a_later_one_has_told_us_itself() -> None:
    for proven in (False, True):
        liveness = Liveness("me#1", lease=LEASE, patience=30.0)
        liveness.seen("r", "r#cut off", 0.0, to_us=True)
        assert [peer.address for peer in liveness.expired(LEASE + 1)] == ["r#cut off"]
        liveness.seen("r", "r#other", 8.0, to_us=False)
        assert liveness.is_alive("r#other")
        if proven:
            liveness.seen("r", "r#other", 8.1, to_us=True)
        assert liveness.seen("r", "r#cut off", 8.2, to_us=True).ignore is proven
        assert liveness.is_alive("r#cut off") is not proven

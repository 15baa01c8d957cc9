"""Which life of a runner counts, when several are heard."""

from __future__ import annotations

from bus.membership.liveness import Presence

LEASE = 6.0


def test_another_life_that_everybody_hears_is_asked_before_it_ends_the_one_we_know() -> None:
    presence = Presence("me#1", lease=LEASE, patience=30.0)
    assert presence.heard("r", "r#old", 0.0, 1, to_us=False).ask
    for now, ask in ((0.1, True), (0.2, False), (2.3, True)):
        heard = presence.heard("r", "r#new", now, 1, to_us=False)
        assert (heard.ask, heard.ignore, heard.gone) == (ask, True, None)
    assert presence.heard("r", "r#third", 2.4, 1, to_us=False).ask
    assert presence.hears("r#old")
    heard = presence.heard("r", "r#new", 2.5, to_us=True)
    assert heard.gone is not None
    assert (heard.gone.address, heard.ignore) == ("r#old", False)
    assert presence.hears("r#new")
    assert presence.heard("r", "r#old", 2.6, to_us=True).ignore, "it is over for good"


def test_a_life_that_is_silent_is_over_only_when_a_later_one_has_told_us_itself() -> None:
    for proven in (False, True):
        presence = Presence("me#1", lease=LEASE, patience=30.0)
        presence.heard("r", "r#cut off", 0.0, to_us=True)
        assert [peer.address for peer in presence.expired(LEASE + 1)] == ["r#cut off"]
        presence.heard("r", "r#other", 8.0, to_us=False)
        assert presence.hears("r#other")
        if proven:
            presence.heard("r", "r#other", 8.1, to_us=True)
        assert presence.heard("r", "r#cut off", 8.2, to_us=True).ignore is proven
        assert presence.hears("r#cut off") is not proven

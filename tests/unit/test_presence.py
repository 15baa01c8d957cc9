"""Which life of a runner counts, when several are heard."""

from __future__ import annotations

from bus.membership.liveness import Liveness

LEASE = 6.0


def test_another_life_that_everybody_hears_is_asked_before_it_ends_the_one_we_know() -> None:
    liveness = Liveness("me#1", lease=LEASE, patience=30.0)
    assert liveness.heard("r", "r#old", 0.0, 1, to_us=False).ask
    for now, ask in ((0.1, True), (0.2, False), (2.3, True)):
        heard = liveness.heard("r", "r#new", now, 1, to_us=False)
        assert (heard.ask, heard.ignore, heard.gone) == (ask, True, None)
    assert liveness.heard("r", "r#third", 2.4, 1, to_us=False).ask
    assert liveness.hears("r#old")
    heard = liveness.heard("r", "r#new", 2.5, to_us=True)
    assert heard.gone is not None
    assert (heard.gone.address, heard.ignore) == ("r#old", False)
    assert liveness.hears("r#new")
    assert liveness.heard("r", "r#old", 2.6, to_us=True).ignore, "it is over for good"


def test_a_life_that_is_silent_is_over_only_when_a_later_one_has_told_us_itself() -> None:
    for proven in (False, True):
        liveness = Liveness("me#1", lease=LEASE, patience=30.0)
        liveness.heard("r", "r#cut off", 0.0, to_us=True)
        assert [peer.address for peer in liveness.expired(LEASE + 1)] == ["r#cut off"]
        liveness.heard("r", "r#other", 8.0, to_us=False)
        assert liveness.hears("r#other")
        if proven:
            liveness.heard("r", "r#other", 8.1, to_us=True)
        assert liveness.heard("r", "r#cut off", 8.2, to_us=True).ignore is proven
        assert liveness.hears("r#cut off") is not proven

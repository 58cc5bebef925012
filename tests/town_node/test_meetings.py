from datetime import date, time

import pytest

from services.town_node.meetings.model import (
    Cancelled,
    EndsBeforeStart,
    HeldAlready,
    Meeting,
    MoreCameThanCounted,
    NotHeldYet,
    NotYet,
)

DAY = date(2012, 6, 20)


def evening(**more):
    meeting = Meeting(code="evening1", kind="start", title="Start", day=DAY, starts=time(19, 30), **more)
    meeting.plan()
    return meeting


def test_an_evening_has_one_direction():
    with pytest.raises(EndsBeforeStart):
        evening(ends=time(19, 0))


def test_nobody_came_to_what_is_still_to_come():
    with pytest.raises(NotYet):
        evening().hold(13, date(2012, 6, 19))


def test_the_number_holds_at_least_who_is_ticked():
    with pytest.raises(MoreCameThanCounted):
        evening().hold(1, DAY, ticked=2)


def test_a_report_leaves_only_when_it_is_published():
    meeting = evening(report="A draft.")
    with pytest.raises(NotHeldYet):
        meeting.publish_report("Thirteen came.")
    assert meeting.hold(13, DAY).report == ""
    said = meeting.publish_report("Thirteen came.")
    assert (said.status, said.attended, said.report) == ("held", 13, "Thirteen came.")


def test_what_was_held_is_not_cancelled_and_what_was_cancelled_not_held():
    held, cancelled = evening(), evening()
    held.hold(13, DAY)
    with pytest.raises(HeldAlready):
        held.cancel()
    cancelled.cancel()
    with pytest.raises(Cancelled):
        cancelled.hold(13, DAY)

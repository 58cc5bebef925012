"""What each view that writes does, in the words of the page that says who did what (`shared/trail.py`).

A view and its operation in the API have one name and share their words. A test holds this list against the views there are.
"""

from shared.language import N_

DEEDS = {
    "circle.edit": N_("Changed the description of the circle"),
    "circle.describe": N_("Changed the description of the circle"),
    "circle.add_person": N_("Let somebody into the circle"),
    "circle.edit_person": N_("Changed somebody's details"),
    "circle.remove_person": N_("Took somebody out of the circle"),
    "initiatives.register": N_("Registered an initiative"),
    "initiatives.change": N_("Changed an initiative"),
    "initiatives.phase": N_("Moved an initiative to another phase"),
    "initiatives.withdraw": N_("Withdrew an initiative"),
    "meetings.plan": N_("Planned a meeting"),
    "meetings.change": N_("Changed a meeting"),
    "meetings.hold": N_("Wrote down who came to a meeting"),
    "meetings.tell": N_("Wrote down what was told in the round"),
    "meetings.close_round": N_("Closed the round of a meeting"),
    "meetings.report": N_("Published the report of a meeting"),
    "meetings.cancel": N_("Cancelled a meeting"),
    "lessons.share": N_("Shared a lesson"),
    "lessons.revise": N_("Changed a lesson"),
    "lessons.withdraw": N_("Took back a lesson"),
    "erasures.erase": N_("Erased something everywhere"),
    "sync.settle": N_("Looked at something that changed on both sides"),
    "membership.begin": N_("Began the circle"),
    "membership.join": N_("Joined the association"),
    "membership.rotate": N_("Made a new key for the town"),
    "membership.leave": N_("Left the association"),
    "transfer.index": N_("Sent a file to import"),
    "transfer.choose_columns": N_("Chose the columns of a file to import"),
    "transfer.forget": N_("Erased a file that was sent to import"),
    "transfer.carry_out": N_("Imported a file"),
}

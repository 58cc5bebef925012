"""What each view that writes does, in the words of the page that says who did what (`shared/trail.py`).

A view and its operation in the API have one name and share their words. A test holds this list against the views there are.
"""

from shared.language import N_

DEEDS = {
    "association.new_town": N_("Made a town and its joining code"),
    "association.renew": N_("Gave a town another joining code"),
    "association.readmit": N_("Gave a town a code to join anew"),
    "association.admit": N_("Let a town in"),
    "guarding.clear": N_("Threw away what was refused of a town"),
    "guarding.retry": N_("Let a view try again that stood still"),
    "guarding.go_on": N_("Let a town go on that stood still"),
    "guarding.revoke": N_("Revoked the key of a town"),
    "guarding.depart": N_("Noted that a town has left"),
    "guarding.erase": N_("Erased what a town that is gone had told"),
    "towns.make": N_("Made a town and its joining code"),
}

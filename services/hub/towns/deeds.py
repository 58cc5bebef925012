"""What each view that writes does, in the words of the page that says who did what (`shared/trail.py`).

A view and its operation in the API have one name and share their words. A test holds this list against the views there are.
"""

from shared.language import N_

DEEDS = {
    "association.new_town": N_("Made a town and its joining code"),
    "towns.make": N_("Made a town and its joining code"),
}

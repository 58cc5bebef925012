"""How coded values read on the screen (`domain.md`, Words): codes travel, words do not."""

from shared import events
from shared.language import N_, _

GROUPS: dict[str, dict[str, str]] = {
    "phase": {
        "idea": N_("Idea"), "plan": N_("Plan"), "almost_operational": N_("Almost operational"),
        "operational": N_("Operational"), "stopped": N_("Stopped"),
    },
    "initiative_kind": {
        "community_garden": N_("Community garden"), "school_garden": N_("School garden"), "green_strip": N_("Green strip"),
        "self_managed_green": N_("Green managed by residents"), "planters": N_("Planters"), "urban_farm": N_("Urban farm"),
        "food_collective": N_("Food collective"), "other": N_("Other"),
    },
    "lesson_kind": {
        "do": N_("Do this"), "dont": N_("Don't do this"), "tip": N_("Tip"), "success_factor": N_("Success factor"),
    },
    "meeting_kind": {
        "circle": N_("Circle meeting"), "start": N_("Start meeting"), "intervision": N_("Intervision"),
        "evaluation": N_("Evaluation"), "excursion": N_("Excursion"), "other": N_("Other"),
    },
    "circle_status": {"active": N_("Active"), "paused": N_("Paused"), "ended": N_("Ended")},
    "working_method": {"circle": N_("Knowledge circle"), "intervision": N_("Intervision")},
    "purpose": {
        "social": N_("Meeting each other"), "commercial": N_("Earning money"), "education": N_("Learning"), "care": N_("Care"),
    },
    "theme": {
        "volunteers": N_("Volunteers"), "business_plan": N_("Business plan"), "finance": N_("Finance"),
        "archaeology": N_("Archaeology"), "social_media": N_("Social media"), "neighbourhood": N_("Involving the neighbourhood"),
        "municipality": N_("Municipality"), "soil": N_("Soil"), "water": N_("Water"), "school": N_("School"),
    },
}  # fmt: skip
ORDER = {
    "phase": events.PHASES, "initiative_kind": events.INITIATIVE_KINDS, "lesson_kind": events.LESSON_KINDS,
    "meeting_kind": events.MEETING_KINDS, "circle_status": events.CIRCLE_STATUSES, "working_method": events.WORKING_METHODS,
    "purpose": events.PURPOSES, "theme": events.THEMES,
}  # fmt: skip


def label(code: str | None, group: str) -> str:
    """The word for a code; a circle's own theme reads as it is spelled."""
    if not code:
        return ""
    known = GROUPS[group].get(code)
    return _(known) if known else code.replace("_", " ").capitalize()


def choices(group: str) -> list[tuple[str, str]]:
    """(code, word) for a form's select, in the house's order."""
    return [(code, label(code, group)) for code in ORDER[group]]

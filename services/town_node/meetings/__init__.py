"""Evenings of the circle: agenda, round, attendance, report (R9–R14). Read `model`, then `actions`."""

"""The circle and its people (R2–R8), and the town's membership of the association.

Read `model`, then `actions`; `membership` says how the node joins and speaks.
"""

"""The circle and its people (R2–R8), and the town's membership of the association.

Read `model`, then `actions`; `naming` recognises people in a text before it leaves (R34); `membership` says how the node joins
and speaks; `fields` is how all pages of the node ask.
"""

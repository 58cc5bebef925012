"""The register of initiatives: what grows in the town, in which phase, since when (R1). Read `model`, then `actions`."""

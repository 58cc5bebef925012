"""The federation kernel, the same on both sides.

Read in the order in which an event passes: `events` (what may leave a town), `envelope` (how it is sealed), `eventlog` (how it gets
its place), `relay`, `bus` and `routes` (how it travels), `inbox` (how it is accepted), `pins` (by whose keys), `quarantine` (what
becomes of the rest), `projections` (how it is folded), `heads` (how both sides find out what is missing), `feed` (how it comes down
to the other towns). Then what undoes: `restore` (a log that was put back, copied or lost) and `erasure`. Beside that path: `db`,
`keys`, `search`, `mail`, `login`, `web`, and `serving` and `settings` (how a service is started).

At the web's doors: `site` (what every request passes), `limits` (how often), `deeds` and `trail` (who did what).

For programs: `api` (what an operation is), `shapes` (how values are read and written), `once` (a change asked twice), `docs` and
`asyncapi` (the documents), `tokens` and `operations` (the pages of scripts' owners and of operators).
"""

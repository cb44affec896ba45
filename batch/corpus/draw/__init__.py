"""The drawn demo corpus: DFDC-shaped clips of drawn people, with no photograph in them.

Read in the data's way: `identity` (who) -> `relief`, `skin`, `features`, `hair` (what a head looks like) -> `portrait`
(one lit drawing) -> `pose` (moving it) -> `scene`, `body` (around it) -> `swap` (a fake from a real) -> `encode` (mp4)
-> `clip` (one real with its fakes) -> `planted` (what is odd or broken on purpose) -> `plan`, `corpus` (the whole).
"""

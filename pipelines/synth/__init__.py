"""The simulated catalogue and listeners of ``recsys demo``: music composed, taste planted, nothing real.

plan            what there will be, artists and songs, drawn from the data in genres and words
music, sound    a song played, and the instruments that it is played on
compose         the songs as tagged mp3 files
listeners       planted tastes, and a year of listens that follow them
"""

from pipelines.synth.files import Composed, compose
from pipelines.synth.listeners import Tastes, affinity, fans, tastes, write_listens
from pipelines.synth.plan import Plan, Song, SynthSettings, plan

__all__ = [
    "Composed",
    "Plan",
    "Song",
    "SynthSettings",
    "Tastes",
    "affinity",
    "compose",
    "fans",
    "plan",
    "tastes",
    "write_listens",
]

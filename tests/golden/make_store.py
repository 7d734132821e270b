"""Make ``store-N.tar.xz``: a whole store with a history, as the code of a day wrote it, and what must stay true of it.

    python tests/golden/make_store.py 1

Run it with the code whose formats are to be kept, never with a later one: a packed store is not made again. Inside are

    store/        two generations (a third was pruned), live.lmdb, journal/, uploads/, cache/, CURRENT
    inputs/       tracks, listens and tags as CSV, music/, settings.toml: what a rebuild reads
    expected.json what ``tests/test_golden_store.py`` holds every later version to

Three builds with listens, dislikes, uploads and deletions before, between and after them, all through the package's own
routines. Each kind of entry is there before the last build and after it.
"""

import json
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.audio_files import encoded, melody
from pipelines.build import Inputs, build
from recsys.config import RunSettings
from recsys.eventlog.events import Listened
from recsys.eventlog.replay import read_live
from recsys.eventlog.store import open_live
from recsys.eventlog.transactions import TRACK, USER
from recsys.live.add_track import NewTrack, add_track
from recsys.live.service import LiveUpdater
from recsys.recommender import Recommender, open_store
from recsys.store.generation import Store
from recsys.store.manifest import read_facts
from recsys.util.progress import Silent

HERE = Path(__file__).parent
WORK = Path("/tmp/golden-store")  # stands in the store: paths of inputs and audio are absolute
GENRES = ("ambient", "metal", "jazz")
CLIPS = ("s0.wav", "s1.mp3", "s2.ogg", "s3.ogg", "s4.mp3", "s5.ogg", "s6.mp3", "s7.ogg")
N_SILENT, N_USERS = 24, 12
SHOWN = ("u0", "u1", "u2", "u3", "u7", "u9", "new", "late", "nobody")  # whose lists are written down
SETTINGS = """
[store]
keep_generations = 2
[hybrid.als]
n_factors = 8
epochs = 5
l2 = 1.0
[hybrid.lightfm]
n_factors = 8
epochs = 5
[hybrid.content]
epochs = 8
fusion = { dim = 8, tower = 4, hidden = 8, lyrics = { n_pieces = 512 } }
[hybrid.wide]
als = { n_factors = 16, mean_confidence = 16.0 }
[hybrid.labels]
dim = 16
[audio]
batch_clips = 2
train = { epochs = 2 }
network = { name = "conv1d", start = "random", width = 8, dim = 12 }
workers = { n_workers = 1 }
"""


def clip(name: str, seed: int) -> bytes:
    """A melody of 1.2 s, small."""
    samples = np.ascontiguousarray(melody(1.2, seed)[::4, 0])  # 11,025 Hz
    kind = name.rpartition(".")[2]
    subtype = {"mp3": "MPEG_LAYER_III", "ogg": "VORBIS"}.get(kind, "PCM_16")
    return encoded(samples, kind.upper(), subtype, 11_025)


def write_inputs(folder: Path) -> None:
    """Write s0..s7 with audio and t0..t23 without, u0..u11 who each play one genre, tags, and settings."""
    (folder / "music").mkdir(parents=True)
    tracks, rng = ["track_id,path,title,artist,genre,year,lyrics"], np.random.default_rng(5)
    names = [f"s{n}" for n in range(len(CLIPS))] + [f"t{n}" for n in range(N_SILENT)]
    for n, name in enumerate(CLIPS):
        (folder / "music" / name).write_bytes(clip(name, n))
    for n, name in enumerate(names):
        path = f"music/{CLIPS[n]}" if n < len(CLIPS) else ""
        words = f"oh number {n} my number" if n % 2 else ""
        tracks.append(f"{name},{path},Song {n},Band {n % 5},{GENRES[n % 3]},{1990 + n},{words}")
    listens = ["user_id,track_id,listened_at,liked,disliked"]
    for user in range(N_USERS):
        own = [name for n, name in enumerate(names[:-1]) if n % 3 == user % 3]
        for at, name in enumerate(rng.choice(own, size=5, replace=False)):
            listens.append(f"u{user},{name},{1_600_000_000 + 100_000 * user + 777 * at},{int(at == 0)},0")
    listens.append("u1,s0,1650000003,0,1")
    tags = ["track_id,tag,weight", *(f"{name},{('slow', 'loud')[n % 2]},{1 + n % 3}" for n, name in enumerate(names))]
    for file, lines in (("tracks.csv", tracks), ("listens.csv", listens), ("tags.csv", tags)):
        (folder / file).write_text("\n".join(lines) + "\n")
    (folder / "settings.toml").write_text(SETTINGS)


def settings_of(folder: Path) -> RunSettings:
    return RunSettings.model_validate(tomllib.loads((folder / "settings.toml").read_text()))


def rebuild(folder: Path) -> str:
    """Build the next generation of the store in a folder from the inputs beside it."""
    inputs = folder / "inputs"
    files = Inputs(inputs / "tracks.csv", inputs / "listens.csv", inputs / "tags.csv")
    return str(build(files, folder / "store", settings_of(inputs), Silent(), strict=True).build["generation"])


def heard(user: str, *tracks: str, day: int, disliked: bool = False, named: bool = True) -> list[Listened]:
    """Listens of a day of May 2024."""
    return [
        Listened(user, track, f"2024-05-{day:02d}T07:08:{at:02d}+00:00", 1.0 + at, disliked,
                 f"{user} {track} {day}" if named else "")
        for at, track in enumerate(tracks)
    ]  # fmt: skip


def add(folder: Path, name: str, seed: int, **about: Any) -> None:
    """Upload a clip."""
    file = folder / "incoming.ogg"
    file.write_bytes(clip("incoming.ogg", seed))
    added = add_track(folder / "store", file, NewTrack(track_id=name, **about))
    assert (added.track_id, added.known, added.has_sound) == (name, False, True), added
    file.unlink()


def opened(folder: Path) -> Any:
    return closing(LiveUpdater(Store(folder / "store"), open_store(folder / "store", "lmdb")))


def make(folder: Path) -> list[str]:
    """Let it all happen; gives the ids of the generations that were built."""
    write_inputs(folder / "inputs")
    made = [rebuild(folder)]
    add(folder, "up-old", 50, genre="jazz", artist="Band 1", year=2020, lyrics="an upload of before")
    add(folder, "up-gone", 51, genre="metal")
    with opened(folder) as live:
        live.record([*heard("u0", "t2", "up-old", day=1), *heard("new", "t1", "s3", "up-old", day=1)])
        live.record([*heard("u2", "t5", day=1, named=False), *heard("u3", "t4", day=1, disliked=True)])
        live.record(heard("u5", "t9", "t10", day=2))
        live.delete_user("u5")
        live.record(heard("u5", "t12", day=3))
        live.record(heard("u6", "t3", "t6", day=3))
        live.delete_track("t7")
        live.delete_track("up-gone")
    made.append(rebuild(folder))
    add(folder, "up-mid", 52, genre="ambient", title="Between")
    with opened(folder) as live:
        live.record([*heard("u0", "t8", day=4), *heard("u9", "up-mid", "t0", day=4)])
        live.record(heard("u4", "t11", day=4, disliked=True))
        live.delete_user("u8")
    made.append(rebuild(folder))  # prunes the first; listens that the second knows move to the journal
    add(folder, "up-new", 53, genre="jazz", artist="Band 1")
    add(folder, "up-brief", 54, genre="metal")
    with opened(folder) as live:
        live.record([*heard("u0", "t14", "up-new", day=5), *heard("late", "up-mid", "s1", day=5)])
        live.record([*heard("u1", "t13", day=5, disliked=True), *heard("u9", "t17", day=5, named=False)])
        live.delete_user("u6")  # whose listens are in the table and in the journal
        live.record(heard("u6", "t20", day=6))
        live.record(heard("gone", "t20", day=6))
        live.delete_user("gone")
        live.delete_track("t15")
        live.delete_track("up-brief")
    return made


def plays_of(store: Path) -> dict[str, Any]:
    """All plays and dislikes of the current generation."""
    with closing(Recommender.open(store)) as recommender:
        model = recommender.model
        found = {"plays": {}, "barred": {}}
        for row, user in enumerate(model.users.all()):
            counts = model.counts[row]
            found["plays"][user] = dict(zip(model.items.ids(counts.indices), counts.data.tolist(), strict=True))
            found["barred"][user] = sorted(model.items.ids(model.barred_items(row)))
        return found | {"tracks": sorted(model.items.all())}


def lists_of(store: Path, users: Sequence[str]) -> dict[str, list[list[Any]]]:
    with closing(open_store(store, "lmdb")) as recommender:
        return {
            user: [[t.track_id, t.score, t.reason_track_id] for t in recommender.recommend(user, 20).tracks]
            for user in users
        }


def expected(folder: Path, made: list[str]) -> dict[str, Any]:
    """Write down what is so, by the code of today; the rebuilt plays are those of a copy that is thrown away."""
    store = Store(folder / "store")
    taken = read_live(store)
    with open_live(store.live) as live, live.reading() as reading:
        log = {
            "last_number": reading.last_seq(), "moved_up_to": reading.moved_up_to(), "version": reading.version(),
            "entries": [[number, type(event).__name__] for number, event in reading.events()],
            "uploads": {u.track_id: [number, u.content_hash, u.file] for number, u in reading.uploads()},
            "gone_tracks": reading.gone(TRACK), "gone_users": reading.gone(USER),
        }  # fmt: skip
    with closing(open_store(store.folder, "lmdb")) as recommender:
        near = {
            track: [[t.track_id, t.score] for t in recommender.similar(track, 10).tracks]
            for track in ("s0", "t5", "up-old", "up-new")
        }
        status = recommender.status()
    known = {
        "made": made, "current": store.current().name, "generations": store.names(), "status": status,
        "taken_in": {name: read_facts(store.generation(name))["last_live_number"] for name in store.names()},
        "log": log, "near": near, "lists": lists_of(store.folder, SHOWN),
        "events": ["u0 t2 1", "u3 t4 1", "u0 t14 5", "gone t20 6"],
        "taken": {"listens": len(taken.listens), "last_number": taken.last_seq,
                  "uploads": [u.track_id for u in taken.uploads]},
        "never": ["t7", "t15", "up-gone", "up-brief"],
        "journal": {file.name: file.stat().st_size for file in sorted(store.journal.iterdir())},
        "uploaded_files": sorted(file.name for file in store.uploads.iterdir()),
    }  # fmt: skip
    shutil.copytree(folder, folder / "copy")
    rebuild(folder / "copy")
    known["rebuilt"] = plays_of(folder / "copy" / "store")
    shutil.rmtree(folder / "copy")
    return known


def pack(folder: Path, to: Path) -> None:
    """Pack it; locks stay out, and who made it and when."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if entry.name.endswith(("-lock", ".lock")):
            return None
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 1_700_000_000
        return entry

    with tarfile.open(to, "w:xz", preset=9) as packed:
        for name in ("store", "inputs", "expected.json"):
            packed.add(folder / name, name, filter=plain)


def main() -> None:
    """Make the store of the number that is given."""
    shutil.rmtree(WORK, ignore_errors=True)
    made = make(WORK)
    (WORK / "expected.json").write_text(json.dumps(expected(WORK, made), indent=1))
    pack(WORK, HERE / f"store-{int(sys.argv[1])}.tar.xz")
    shutil.rmtree(WORK)


if __name__ == "__main__":
    main()

"""Sound vectors out of a store and into another one, so that nothing is analysed twice.

    store  ->  export_vectors  ->  vectors.parquet, and perhaps the network's folder
    vectors.parquet, the network's folder  ->  import_vectors  ->  the store's sound cache; the next build takes them

A build takes vectors of its own network alone, by its version. A head that is fitted to a catalogue is a network of its
own, so a new store that is to go on with another one's vectors needs that one's network too. Nothing is a pickle:
vectors are Parquet, networks safetensors and JSON.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from pipelines.build import keep_network
from recsys.audio.cache import CachedSound, VectorCache
from recsys.audio.model import SoundModel
from recsys.audio.vector_file import StoredSound, read_vectors, write_vectors
from recsys.catalogue.problems import Problems
from recsys.errors import ArtefactError, ConfigError, DataError
from recsys.store.duckdb_tables import FILE, connect
from recsys.store.generation import Store, disk_errors
from recsys.util.progress import Progress

_BLOCK = 4096  # recordings whose tracks are looked up at once
_DAMAGED = "damaged-vector"
_NAMES = """
SELECT content_hash, min(track_id), min_by(path, track_id) FROM track_audio JOIN tracks USING (track_id)
WHERE content_hash IN (SELECT unnest(?::VARCHAR[])) GROUP BY content_hash
"""
_PUBLISHED = """
SELECT content_hash, min(track_id), min_by(path, track_id), min_by(duration_s, track_id), min_by(vector, track_id)
FROM track_audio JOIN tracks USING (track_id) JOIN track_vectors USING (track_id)
WHERE space = 'sound' AND content_hash <> '' GROUP BY content_hash
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote: rows by network's version, those versions in words, and the network that builds use."""

    rows: dict[str, int]
    networks: dict[str, str]
    current: str | None


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import came to: rows that are new by network's version, those that were known, and the store's network.

    ``current`` is None where the store has no network yet.
    """

    new: dict[str, int]
    known: int
    current: str | None

    @property
    def apart(self) -> dict[str, int]:
        """The new rows of networks that are not the store's."""
        return {version: n for version, n in self.new.items() if version != self.current}


def export_vectors(folder: Path, out: Path, network: Path | None, problems: Problems, progress: Progress) -> Exported:
    """Write all sound vectors that a store knows: those of its cache, and of its current generation.

    Args:
        folder: of the store.
        out: the Parquet file to write.
        network: a folder to write the store's network to, made if it is not there; None writes none.
        problems: told of entries that are damaged.
        progress: shows how many are written.

    Raises:
        ArtefactError: there is no store, it is being built, or it has no sound vectors or no network.
        DataError: a file cannot be written.
    """
    store = _there(folder)
    with store.build_lock(), progress.stage("vectors") as stage:
        networks, current = _networks(store), current_network(store)
        counts: Counter[str] = Counter()
        n = write_vectors(out, _counted(_known(store, networks, current, problems), counts))
        if not n:
            out.unlink()
            raise ArtefactError(f"{folder} has no sound vectors; build it from tracks with audio")
        if network is not None:
            _write_network(store, network)
        stage.done(f"{n:,} vectors of {len(counts)} networks")
    return Exported(dict(counts), {version: networks.get(version, "unknown") for version in counts}, current)


def import_vectors(file: Path, folder: Path, network: Path | None, problems: Problems, progress: Progress) -> Imported:
    """Put vectors into a store's cache, each under the version of its network; what is there already stays.

    Args:
        file: that an export wrote.
        folder: of the store; made if it is not there.
        network: a folder with the network that the store's builds are to use; None leaves that to the build.
        problems: told of rows that are damaged, which are left out.
        progress: shows what became of the rows.

    Raises:
        ArtefactError: the store is being built, or the network is damaged.
        ConfigError: a network is given, and the store has another one already.
        DataError: the file is unusable, or no row of it can be used.
    """
    store = Store(folder)
    model = None if network is None else SoundModel.load(network)
    blocks = read_vectors(file, problems)
    first = next(blocks, [])  # a file that is no table must not leave a store behind
    with store.build_lock(), disk_errors("the import"), progress.stage("vectors") as stage:
        if model is not None:
            _take_network(store, model)
        store.cache.mkdir(exist_ok=True)
        taken = Imported({}, 0, current_network(store))
        with VectorCache(store.cache / "sound.lmdb") as cache:
            for block in (first, *blocks):
                taken = _taken(block, taken, cache, str(file), problems)
        stage.done(f"{sum(taken.new.values()):,} new vectors, {taken.known:,} were here")
    if not taken.new and not taken.known:
        raise DataError(f"{file}: none of its rows can be used{_first(problems)}; export it again")
    return taken


def _there(folder: Path) -> Store:
    store = Store(folder)
    if not store.has_current() and not (store.cache / "sound.lmdb").exists():
        raise ArtefactError(f"{folder} holds no sound vectors; make a store with `recsys build --store {folder} …`")
    return store


def _first(problems: Problems) -> str:
    told = problems.examples()
    return f" ({told[0][-1]})" if told else ""


def _homes(store: Store) -> list[Path]:
    """Folders of networks, that which the next build takes first."""
    folders = [store.current()] if store.has_current() else []
    folders += [store.generation(name) for name in reversed(store.names()) if store.generation(name) not in folders]
    homes = [folder / "models" / "sound" for folder in folders]
    return [home for home in (*homes[:1], store.cache / "network" / "sound", *homes[1:]) if home.is_dir()]


def _networks(store: Store) -> dict[str, str]:
    """Name the networks that the store has, by version."""
    found: dict[str, str] = {}
    for home in _homes(store):
        about = _about(home)
        if about is not None:
            found.setdefault(about["version"], about["network"])
    return found


def current_network(store: Store) -> str | None:
    """Find the version of the network that the store's builds use, as long as its settings stay; None: not yet one."""
    about = next((about for about in map(_about, _homes(store)) if about is not None), None)
    return None if about is None else str(about["version"])


def _about(home: Path) -> dict[str, Any] | None:
    """Read what a network's folder says of itself; None where that is damaged, which the next build will say."""
    try:
        about = json.loads((home / "sound.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and {"version", "network"} <= about.keys() else None


def _counted(rows: Iterable[StoredSound], counts: Counter[str]) -> Iterator[StoredSound]:
    for row in rows:
        counts[row.model] += 1
        yield row


def _known(store: Store, networks: dict[str, str], current: str | None, problems: Problems) -> Iterator[StoredSound]:
    """All vectors of the cache, then those of the current generation that the cache lacks."""
    file = store.cache / "sound.lmdb"
    published = store.current() / FILE if store.has_current() else None
    with (
        nullcontext() if not file.exists() else VectorCache(file) as cache,
        nullcontext() if published is None else connect(published) as tables,
    ):
        if cache is not None:
            yield from _of_cache(cache, tables, networks, problems)
        if tables is not None and current is not None:
            yield from _of_generation(tables, cache, current, networks.get(current))


def _of_cache(
    cache: VectorCache, tables: duckdb.DuckDBPyConnection | None, networks: dict[str, str], problems: Problems
) -> Iterator[StoredSound]:
    entries = cache.entries()
    while block := list(islice(entries, _BLOCK)):
        names: dict[str, tuple[str, str | None]] = {}
        if tables is not None:
            rows = tables.execute(_NAMES, [[content_hash for _, content_hash, _ in block]]).fetchall()
            names = {content_hash: (track_id, path) for content_hash, track_id, path in rows}
        for version, content_hash, sound in block:
            if sound is None:
                problems.add(_DAMAGED, "the sound cache", None, content_hash, "the entry cannot be read")
                continue
            track_id, path = names.get(content_hash, (None, None))
            yield StoredSound(version, content_hash, sound, networks.get(version), track_id, path)


def _of_generation(
    tables: duckdb.DuckDBPyConnection, cache: VectorCache | None, version: str, network: str | None
) -> Iterator[StoredSound]:
    """Vectors that were published and are not in the cache; of their files no more is known than how long they are."""
    rows = tables.cursor().execute(_PUBLISHED)
    while block := rows.fetchmany(_BLOCK):
        for content_hash, track_id, path, duration_s, numbers in block:
            if cache is None or not _has(cache, version, content_hash):
                vector = np.array(numbers, np.float32)
                sound = CachedSound(vector, duration_s or 0.0, "", (), 1)
                yield StoredSound(version, content_hash, sound, network, track_id, path)


def _has(cache: VectorCache, version: str, content_hash: str) -> bool:
    try:
        return cache.get(version, content_hash) is not None
    except ArtefactError:  # the entry is damaged, and another one is welcome
        return False


def _write_network(store: Store, folder: Path) -> None:
    home = next(iter(_homes(store)), None)
    if home is None:
        raise ArtefactError(f"{store.folder} has no audio network; its vectors came with the tracks")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        SoundModel.load(home).save(folder)
    except OSError as error:
        raise DataError(f"the network cannot be written to {folder}: {error.strerror}") from error


def _take_network(store: Store, model: SoundModel) -> None:
    """Have the store's builds use a network, if they have none yet.

    Raises:
        ConfigError: they have another one.
    """
    current = current_network(store)
    if current not in (None, model.version):
        raise ConfigError(
            f"{store.folder} has the network {current} already, with which its lists were made, and {model.version} is "
            "given; import without --network, or into a new store"
        )
    if current is None:
        store.cache.mkdir(exist_ok=True)
        keep_network(store, model)


def _taken(block: list[StoredSound], taken: Imported, cache: VectorCache, file: str, problems: Problems) -> Imported:
    """Put a block's new rows into the cache; those of another width than the rest of their network are problems."""
    new, known = Counter(taken.new), taken.known
    dims = {version: cache.dim_of(version) or _usual_dim(block, version) for version in {row.model for row in block}}
    kept: dict[str, dict[str, CachedSound]] = {}
    for row in block:
        if len(row.sound.vector) != dims[row.model]:
            reason = f"the vector has {len(row.sound.vector)} numbers, others of its network have {dims[row.model]}"
            problems.add("bad-vector", file, None, row.content_hash, reason)
        elif _has(cache, row.model, row.content_hash):
            known += 1
        else:
            kept.setdefault(row.model, {}).setdefault(row.content_hash, row.sound)
    for version, sounds in kept.items():
        cache.put(version, sounds.items(), [])
        new[version] += len(sounds)
    return Imported(dict(new), known, taken.current)


def _usual_dim(block: list[StoredSound], version: str) -> int:
    return Counter(len(row.sound.vector) for row in block if row.model == version).most_common(1)[0][0]

"""Whatever a client sends, it gets an answer or a sentence, and the server is as it was before."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.load import Load
from helpers.serve_process import ROOT, Serve, serve, stub_of
from helpers.stores import copied
from recsys.serving.server import SERVICE
from recsys.v1 import recommender_pb2 as pb

CALL_S = 60.0
METHODS = pb.DESCRIPTOR.services_by_name["Recommender"].methods_by_name
DRAWN = [*3 * sorted(METHODS), *6 * ["Recommend", "RecordListens"]]  # calls with many fields come more often
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.RESOURCE_EXHAUSTED,
}  # fmt: skip
KNOWN_TRACKS, KNOWN_USERS = [f"t{n}" for n in range(40)], [f"u{n}" for n in range(30)]
WORDS = ["hybrid", "taste", "sound", "content", "jazz", "Artist 1-0", "../../etc/passwd", "a" * 2000, "\0", "é\u202e"]
NUMBERS = {
    FieldDescriptor.TYPE_UINT32: st.integers(0, 250) | st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT32: st.integers(1900, 2100) | st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(0, 2_000_000_000) | st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=200),
}
MEMORY_MB = 6.0  # that a worker may gain after its first 30,000 requests


def texts(can_be_known: bool) -> st.SearchStrategy[str]:
    free = st.text(max_size=20) | st.sampled_from(WORDS)
    return st.sampled_from([*KNOWN_TRACKS, *KNOWN_USERS]) | free if can_be_known else free


def messages(kind: Descriptor, can_be_known: bool = True) -> st.SearchStrategy:
    """Messages of a type, each field set or not, to anything that its type allows; of a oneof the last one counts."""
    fields = {}
    for field in kind.fields:
        if field.message_type is not None:
            values = messages(field.message_type, can_be_known)
        elif field.type == FieldDescriptor.TYPE_STRING:
            values = texts(can_be_known)
        else:
            values = NUMBERS[field.type]
        fields[field.name] = st.lists(values, max_size=4) if field.is_repeated else values
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: GetMessageClass(kind)(**given))


def changed(body: bytes) -> st.SearchStrategy[bytes]:
    """The bytes of a message with a few others in their midst, or cut off."""
    place = st.integers(0, len(body))
    return st.tuples(place, place, st.binary(max_size=6)).map(lambda c: body[: c[0]] + c[2] + body[c[1] :])


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A method, and what is sent to it: one message, or several where it takes a stream."""
    name = draw(st.sampled_from(DRAWN))
    kind = METHODS[name].input_type
    # what a deletion takes away is not there for the others to be asked about
    made = messages(kind, can_be_known=not name.startswith("Delete")).map(lambda message: message.SerializeToString())
    body = made | made.flatmap(changed) | st.binary(max_size=100)
    if name != "UploadTrack":
        return name, [draw(body)]
    about = messages(pb.NewTrack.DESCRIPTOR).map(lambda a: pb.UploadTrackRequest(about=a).SerializeToString())
    return name, [*draw(st.lists(about, max_size=1)), *draw(st.lists(body, max_size=3))]


class Fuzzed:
    """A server, what it refused with, and how often."""

    def __init__(self, server: Serve, store: Path) -> None:
        self.server, self.store = server, store
        self.channel = grpc.insecure_channel(server.address)
        self.seen: dict[tuple[str, str], int] = {}

    def __call__(self, name: str, bodies: list[bytes]) -> None:
        """Send it; the test fails where the answer is not one that a client should get."""
        path, status, sentence = f"/{SERVICE}/{name}", grpc.StatusCode.OK, ""
        try:
            if METHODS[name].client_streaming:
                self.channel.stream_unary(path)(iter(bodies), timeout=CALL_S)
            else:
                self.channel.unary_unary(path)(bodies[0], timeout=CALL_S)
        except grpc.RpcError as error:
            status, sentence = error.code(), error.details()
            assert status in REFUSALS, (name, bodies, status, sentence)
            assert sentence, (name, bodies, status)
            for secret in ("Traceback", 'File "', ".py", str(self.store), str(ROOT), sys.prefix):
                assert secret not in sentence, (name, bodies, sentence)
        self.seen[name, status.name] = self.seen.get((name, status.name), 0) + 1

    def is_well(self) -> None:
        """The server answers as before, the same processes are there, and it complains of nothing."""
        with stub_of(self.server.address) as stub:
            assert len(stub.Recommend(pb.RecommendRequest(user_id="nobody", k=5), timeout=CALL_S).tracks) == 5
        for fault in ("Traceback", "failed", "ended with", "was killed"):
            assert fault not in self.server.log, self.server.log


@pytest.fixture(scope="module")
def fuzzed(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    store = copied(tiny_store, tmp_path_factory.mktemp("fuzz"))
    with serve(store, workers=1, embed=True) as server:
        found = Fuzzed(server, store)
        with closing(found.channel):
            yield found


def fuzz(fuzzed: Fuzzed, n_calls: int) -> None:
    workers = fuzzed.server.workers()

    @settings(max_examples=n_calls, database=None, suppress_health_check=list(HealthCheck))
    @given(calls())
    def send(call: tuple[str, list[bytes]]) -> None:
        fuzzed(*call)

    send()
    assert fuzzed.server.workers() == workers
    fuzzed.is_well()
    assert {name for name, _ in fuzzed.seen} == set(METHODS)
    assert {status for _, status in fuzzed.seen} >= {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}


@pytest.mark.slow
def test_nothing_that_is_sent_is_more_than_refused(fuzzed: Fuzzed) -> None:
    fuzz(fuzzed, 250)


@pytest.mark.long
def test_ten_thousand_calls_are_no_more_than_refused(fuzzed: Fuzzed) -> None:
    fuzz(fuzzed, 10_000)


# ---- an hour's worth of requests ---------------------------------------------------------------------------------

LISTEN = pb.RecordListensRequest(listens=[pb.Listen(user_id="u3", track_id="t5", event_id="once")])
REQUESTS = {  # how many of them, and what is asked; what is refused may leak as well
    "Recommend": (60_000, lambda n: pb.RecommendRequest(user_id=f"u{n % 40}", k=n % 30)),
    "Recommend/filtered": (15_000, lambda n: pb.RecommendRequest(user_id=f"u{n % 30}", k=5, genres=["jazz", str(n)])),
    "Recommend/refused": (15_000, lambda n: pb.RecommendRequest(k=n)),
    "SimilarTracks": (40_000, lambda n: pb.SimilarTracksRequest(track_id=f"t{n % 45}", k=5)),
    "GetTrack": (15_000, lambda n: pb.GetTrackRequest(track_id=f"t{n % 60}")),
    "AudienceOf": (2_000, lambda n: pb.AudienceOfRequest(track_id=f"t{n % 40}", k=5)),
    "RecommendFromTracks": (2_000, lambda n: pb.RecommendFromTracksRequest(track_ids=[f"t{n % 40}"], k=5)),
    "RecordListens": (2_000, lambda n: LISTEN),
}


def rss_mb(pid: int) -> float:
    """Memory of a process that is its own: what is mapped from files is the page cache's."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("this system does not tell")


def asked(address: str, share: float) -> int:
    """Send a share of the requests, and how many they were; each kind on a connection of its own."""
    host, _, port = address.rpartition(":")
    n_sent = 0
    for name, (n_calls, request) in REQUESTS.items():
        with closing(Load(host, int(port))) as load:
            n, method = 0, f"/{SERVICE}/{name.partition('/')[0]}"
            while n < share * n_calls:
                n += load.peak(method, lambda i, n=n, ask=request: ask(n + i).SerializeToString(), 0.5).n
        n_sent += n
    return n_sent


@pytest.mark.long
def test_an_hours_worth_of_requests_takes_no_memory(tiny_store: Path, tmp_path: Path) -> None:
    with serve(copied(tiny_store, tmp_path), workers=1) as server:
        [worker] = server.workers()
        asked(server.address, 0.2)
        before = rss_mb(worker)
        n_sent = asked(server.address, 1.0)
        assert n_sent >= 150_000
        gained = rss_mb(worker) - before
        print(f"{n_sent:,} requests: {before:.1f} MB and {gained:+.1f} MB")
        assert gained < MEMORY_MB
        assert "Traceback" not in server.log

"""The code in recsys/v1 is what protoc makes of the proto today, and field numbers stay what they are."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from helpers.places import ROOT
from recsys.v1 import recommender_pb2 as pb

PROTO = ROOT / "proto" / "recsys" / "v1" / "recommender.proto"
GENERATED = ("recommender_pb2.py", "recommender_pb2.pyi", "recommender_pb2_grpc.py")


@pytest.fixture(scope="module")
def generated_anew(tmp_path_factory) -> Path:
    pytest.importorskip("grpc_tools", reason="grpcio-tools (extra dev) is not installed")
    out = tmp_path_factory.mktemp("generated")
    options = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    options.append(f"--descriptor_set_out={out / 'descriptors'}")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "proto"), *options, str(PROTO)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("name", GENERATED)
def test_generated_code_is_current(generated_anew, name):
    checked_in = (ROOT / "recsys" / "v1" / name).read_text()
    grpc_code = (ROOT / "recsys" / "v1" / "recommender_pb2_grpc.py").read_text()
    made_with = re.search(r"GRPC_GENERATED_VERSION = '(.+)'", grpc_code)[1]
    installed = importlib.metadata.version("grpcio-tools")
    if made_with != installed:
        pytest.skip(f"recsys/v1 was made with grpcio-tools {made_with}, {installed} may write it otherwise")
    assert checked_in == (generated_anew / "recsys" / "v1" / name).read_text(), "run `make proto`"


def test_generated_messages_are_current_whatever_made_them(generated_anew):
    now = FileDescriptorSet.FromString((generated_anew / "descriptors").read_bytes()).file[0]
    checked_in = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(checked_in)
    for field in (field for message in now.message_type for field in message.field):
        field.ClearField("json_name")  # protoc fills it in, the Python code leaves it out
    assert checked_in == now, "run `make proto`"


def test_generated_code_imports_from_the_package():
    grpc_code = (ROOT / "recsys" / "v1" / "recommender_pb2_grpc.py").read_text()
    assert "from recsys.v1 import recommender_pb2" in grpc_code


def test_every_message_field_and_rpc_has_a_comment_above():
    lines = PROTO.read_text().splitlines()
    declares = re.compile(r"^\s*(message|service|rpc|(repeated |optional )?[\w.]+ \w+ = \d+;)")
    declared = [number for number, line in enumerate(lines) if declares.match(line)]
    assert len(declared) > 40
    assert [lines[n] for n in declared if not lines[n - 1].strip().startswith("//")] == []


@pytest.mark.parametrize("message", [pb.RecommendResponse, pb.SimilarTracksResponse, pb.RecommendFromTracksResponse])
def test_lists_share_one_layout_with_the_tracks_first(message):
    numbers = {field.name: field.number for field in message.DESCRIPTOR.fields}
    assert {name: numbers[name] for name in ("tracks", "generation", "source")} == {
        "tracks": 1,
        "generation": 2,
        "source": 3,
    }


def test_ranked_track_numbers_are_fixed():
    numbers = {field.name: field.number for field in pb.RankedTrack.DESCRIPTOR.fields}
    assert numbers == {"track_id": 1, "score": 2, "reason_track_id": 3}


def test_stored_bytes_concatenate_in_any_order():
    """The head may come before the tracks, and tracks may be cut at k: what stored responses rely on."""
    head = pb.RecommendResponse(generation="g1", source="personal").SerializeToString()
    tracks = [pb.RecommendResponse(tracks=[pb.RankedTrack(track_id=name)]) for name in ("b", "a", "c")]
    stored = head + b"".join(track.SerializeToString() for track in tracks[:2])
    read = pb.RecommendResponse.FromString(stored)
    assert [track.track_id for track in read.tracks] == ["b", "a"]
    assert (read.generation, read.source) == ("g1", "personal")

"""Lines on standard error: for people or as JSON, and without what was said in confidence."""

import json
import logging

import pytest

from recsys.errors import ArtefactError, NotFoundError
from recsys.serving import logs
from recsys.serving.call_context import CALL, Call
from recsys.serving.logs import CallLog, to_stderr
from recsys.serving.settings import ServeSettings

OWN, OTHER = logging.getLogger("recsys.serving.server"), logging.getLogger("asyncio")


def failed(error: Exception, logger: logging.Logger = OWN, message: str = "Recommend failed") -> None:
    try:
        try:
            raise KeyError("u-secret")
        except KeyError as cause:
            raise error from cause
    except Exception as caught:
        logger.error(message, exc_info=caught)


def test_text_is_for_people(capsys):
    with to_stderr(ServeSettings()):
        OWN.warning("worker %d ended", 7)
        CallLog().refused("DeleteUser", "PERMISSION_DENIED", "not yours", peer="ipv4:1.2.3.4:5", token="phone")
    assert capsys.readouterr().err.splitlines() == [
        "worker 7 ended",
        "DeleteUser refused: not yours (status PERMISSION_DENIED, peer ipv4:1.2.3.4:5, token phone)",
    ]


def test_json_is_an_object_a_line(capsys):
    with to_stderr(ServeSettings(log="json")):
        OWN.warning("two\nlines")
        CallLog().refused("DeleteUser", "PERMISSION_DENIED", "not yours", peer="ipv4:1.2.3.4:5")
        failed(NotFoundError("u-secret"))
    plain, refused, fault = map(json.loads, capsys.readouterr().err.splitlines())
    assert (plain["message"], plain["level"]) == ("two\nlines", "warning")
    assert plain["at"].endswith("+00:00")
    assert (refused["status"], refused["peer"]) == ("PERMISSION_DENIED", "ipv4:1.2.3.4:5")
    assert [line for line in fault["fault"] if "test_logs.py" in line and line.endswith("in failed")]
    assert [line for line in fault["fault"] if " in " not in line] == ["KeyError", "NotFoundError"]


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_a_fault_says_is_kept_back_unless_asked_for(capsys, style):
    with to_stderr(ServeSettings(log=style)):
        failed(ValueError("lyric of u-secret"))
        failed(ValueError("u-secret"), OTHER, "Task exception was never retrieved\nfuture: <Task KeyError('u-secret')>")
        failed(ValueError("u-secret"), OTHER, "Exception in callback work('u-secret')")
    told = capsys.readouterr().err
    assert "u-secret" not in told
    assert told.count("ValueError") == 3
    assert "Task exception was never retrieved" in told
    assert "Recommend failed" in told
    with to_stderr(ServeSettings(log=style, log_details=True)):
        failed(ValueError("lyric of u-secret"))
    assert "lyric of u-secret" in capsys.readouterr().err


def test_what_is_of_this_machine_is_told(capsys):
    with to_stderr(ServeSettings()):
        failed(ArtefactError("/srv/store is damaged"))
        failed(OSError(28, "No space left on device"))
    told = capsys.readouterr().err
    assert "ArtefactError: /srv/store is damaged" in told
    assert "No space left on device" in told
    assert "u-secret" not in told


def test_a_line_within_a_call_names_its_method_and_token(capsys):
    call = Call("GetTrack")
    call.client = "phone"
    before = CALL.set(call)
    try:
        with to_stderr(ServeSettings(log="json")):
            OWN.error("failed")
    finally:
        CALL.reset(before)
    told = json.loads(capsys.readouterr().err)
    assert (told["method"], told["token"]) == ("GetTrack", "phone")


def test_a_flood_of_refusals_is_not_one_of_lines(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    log = CallLog()
    with to_stderr(ServeSettings()):
        for _ in range(1000):
            log.refused("Recommend", "UNAUTHENTICATED", "no token")
        now[0] += 1
        log.refused("Recommend", "UNAUTHENTICATED", "no token")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == logs.LINES_S + 2
    assert lines[-2] == f"{1000 - logs.LINES_S} more refusals were not told one by one"


def test_nothing_is_left_behind(capsys):
    root, own = logging.getLogger(), logging.getLogger("recsys")
    before = list(root.handlers), own.level
    with to_stderr(ServeSettings()):
        pass
    assert (list(root.handlers), own.level) == before

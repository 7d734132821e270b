import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "k")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    k: int
    def __init__(self, user_id: _Optional[str] = ..., k: _Optional[int] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("tracks", "generation", "source")
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    tracks: _containers.RepeatedCompositeFieldContainer[RankedTrack]
    generation: str
    source: str
    def __init__(self, tracks: _Optional[_Iterable[_Union[RankedTrack, _Mapping]]] = ..., generation: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class RankedTrack(_message.Message):
    __slots__ = ("track_id", "score", "reason_track_id")
    TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    REASON_TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    track_id: str
    score: float
    reason_track_id: str
    def __init__(self, track_id: _Optional[str] = ..., score: _Optional[float] = ..., reason_track_id: _Optional[str] = ...) -> None: ...

class SimilarTracksRequest(_message.Message):
    __slots__ = ("track_id", "k", "space")
    TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    track_id: str
    k: int
    space: str
    def __init__(self, track_id: _Optional[str] = ..., k: _Optional[int] = ..., space: _Optional[str] = ...) -> None: ...

class SimilarTracksResponse(_message.Message):
    __slots__ = ("tracks", "generation", "source")
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    tracks: _containers.RepeatedCompositeFieldContainer[RankedTrack]
    generation: str
    source: str
    def __init__(self, tracks: _Optional[_Iterable[_Union[RankedTrack, _Mapping]]] = ..., generation: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class RecommendFromTracksRequest(_message.Message):
    __slots__ = ("track_ids", "k")
    TRACK_IDS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    track_ids: _containers.RepeatedScalarFieldContainer[str]
    k: int
    def __init__(self, track_ids: _Optional[_Iterable[str]] = ..., k: _Optional[int] = ...) -> None: ...

class RecommendFromTracksResponse(_message.Message):
    __slots__ = ("tracks", "generation", "source")
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    tracks: _containers.RepeatedCompositeFieldContainer[RankedTrack]
    generation: str
    source: str
    def __init__(self, tracks: _Optional[_Iterable[_Union[RankedTrack, _Mapping]]] = ..., generation: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class GetTrackRequest(_message.Message):
    __slots__ = ("track_id",)
    TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    track_id: str
    def __init__(self, track_id: _Optional[str] = ...) -> None: ...

class GetTrackResponse(_message.Message):
    __slots__ = ("track",)
    TRACK_FIELD_NUMBER: _ClassVar[int]
    track: Track
    def __init__(self, track: _Optional[_Union[Track, _Mapping]] = ...) -> None: ...

class Track(_message.Message):
    __slots__ = ("track_id", "title", "artist", "album", "genres", "year", "duration_s", "plays", "is_cold")
    TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    ARTIST_FIELD_NUMBER: _ClassVar[int]
    ALBUM_FIELD_NUMBER: _ClassVar[int]
    GENRES_FIELD_NUMBER: _ClassVar[int]
    YEAR_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    PLAYS_FIELD_NUMBER: _ClassVar[int]
    IS_COLD_FIELD_NUMBER: _ClassVar[int]
    track_id: str
    title: str
    artist: str
    album: str
    genres: _containers.RepeatedScalarFieldContainer[str]
    year: int
    duration_s: float
    plays: float
    is_cold: bool
    def __init__(self, track_id: _Optional[str] = ..., title: _Optional[str] = ..., artist: _Optional[str] = ..., album: _Optional[str] = ..., genres: _Optional[_Iterable[str]] = ..., year: _Optional[int] = ..., duration_s: _Optional[float] = ..., plays: _Optional[float] = ..., is_cold: _Optional[bool] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("generation", "created_at", "n_tracks", "n_users", "n_listens", "n_uploads", "spaces")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    N_TRACKS_FIELD_NUMBER: _ClassVar[int]
    N_USERS_FIELD_NUMBER: _ClassVar[int]
    N_LISTENS_FIELD_NUMBER: _ClassVar[int]
    N_UPLOADS_FIELD_NUMBER: _ClassVar[int]
    SPACES_FIELD_NUMBER: _ClassVar[int]
    generation: str
    created_at: _timestamp_pb2.Timestamp
    n_tracks: int
    n_users: int
    n_listens: int
    n_uploads: int
    spaces: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, generation: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., n_tracks: _Optional[int] = ..., n_users: _Optional[int] = ..., n_listens: _Optional[int] = ..., n_uploads: _Optional[int] = ..., spaces: _Optional[_Iterable[str]] = ...) -> None: ...

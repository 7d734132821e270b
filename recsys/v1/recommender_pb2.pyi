import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "k", "exclude_track_ids", "genres", "artists", "min_year", "max_year", "max_per_artist", "diversity", "include_heard", "only_new")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_TRACK_IDS_FIELD_NUMBER: _ClassVar[int]
    GENRES_FIELD_NUMBER: _ClassVar[int]
    ARTISTS_FIELD_NUMBER: _ClassVar[int]
    MIN_YEAR_FIELD_NUMBER: _ClassVar[int]
    MAX_YEAR_FIELD_NUMBER: _ClassVar[int]
    MAX_PER_ARTIST_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_HEARD_FIELD_NUMBER: _ClassVar[int]
    ONLY_NEW_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    k: int
    exclude_track_ids: _containers.RepeatedScalarFieldContainer[str]
    genres: _containers.RepeatedScalarFieldContainer[str]
    artists: _containers.RepeatedScalarFieldContainer[str]
    min_year: int
    max_year: int
    max_per_artist: int
    diversity: float
    include_heard: bool
    only_new: bool
    def __init__(self, user_id: _Optional[str] = ..., k: _Optional[int] = ..., exclude_track_ids: _Optional[_Iterable[str]] = ..., genres: _Optional[_Iterable[str]] = ..., artists: _Optional[_Iterable[str]] = ..., min_year: _Optional[int] = ..., max_year: _Optional[int] = ..., max_per_artist: _Optional[int] = ..., diversity: _Optional[float] = ..., include_heard: _Optional[bool] = ..., only_new: _Optional[bool] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("tracks", "generation", "source", "note", "good_until")
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    GOOD_UNTIL_FIELD_NUMBER: _ClassVar[int]
    tracks: _containers.RepeatedCompositeFieldContainer[RankedTrack]
    generation: str
    source: str
    note: str
    good_until: int
    def __init__(self, tracks: _Optional[_Iterable[_Union[RankedTrack, _Mapping]]] = ..., generation: _Optional[str] = ..., source: _Optional[str] = ..., note: _Optional[str] = ..., good_until: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("track_ids", "k", "ordered")
    TRACK_IDS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    ORDERED_FIELD_NUMBER: _ClassVar[int]
    track_ids: _containers.RepeatedScalarFieldContainer[str]
    k: int
    ordered: bool
    def __init__(self, track_ids: _Optional[_Iterable[str]] = ..., k: _Optional[int] = ..., ordered: _Optional[bool] = ...) -> None: ...

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

class AudienceOfRequest(_message.Message):
    __slots__ = ("track_id", "k")
    TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    track_id: str
    k: int
    def __init__(self, track_id: _Optional[str] = ..., k: _Optional[int] = ...) -> None: ...

class AudienceOfResponse(_message.Message):
    __slots__ = ("users", "generation")
    USERS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[AudienceMember]
    generation: str
    def __init__(self, users: _Optional[_Iterable[_Union[AudienceMember, _Mapping]]] = ..., generation: _Optional[str] = ...) -> None: ...

class AudienceMember(_message.Message):
    __slots__ = ("user_id", "margin")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    margin: float
    def __init__(self, user_id: _Optional[str] = ..., margin: _Optional[float] = ...) -> None: ...

class UploadTrackRequest(_message.Message):
    __slots__ = ("about", "chunk")
    ABOUT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    about: NewTrack
    chunk: bytes
    def __init__(self, about: _Optional[_Union[NewTrack, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class NewTrack(_message.Message):
    __slots__ = ("track_id", "title", "artist", "album", "genres", "year", "lyrics", "file_name")
    TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    ARTIST_FIELD_NUMBER: _ClassVar[int]
    ALBUM_FIELD_NUMBER: _ClassVar[int]
    GENRES_FIELD_NUMBER: _ClassVar[int]
    YEAR_FIELD_NUMBER: _ClassVar[int]
    LYRICS_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    track_id: str
    title: str
    artist: str
    album: str
    genres: _containers.RepeatedScalarFieldContainer[str]
    year: int
    lyrics: str
    file_name: str
    def __init__(self, track_id: _Optional[str] = ..., title: _Optional[str] = ..., artist: _Optional[str] = ..., album: _Optional[str] = ..., genres: _Optional[_Iterable[str]] = ..., year: _Optional[int] = ..., lyrics: _Optional[str] = ..., file_name: _Optional[str] = ...) -> None: ...

class UploadTrackResponse(_message.Message):
    __slots__ = ("track_id", "known", "has_sound", "neighbours", "users_reached", "notes", "generation")
    TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    HAS_SOUND_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    USERS_REACHED_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    track_id: str
    known: bool
    has_sound: bool
    neighbours: _containers.RepeatedCompositeFieldContainer[RankedTrack]
    users_reached: int
    notes: _containers.RepeatedScalarFieldContainer[str]
    generation: str
    def __init__(self, track_id: _Optional[str] = ..., known: _Optional[bool] = ..., has_sound: _Optional[bool] = ..., neighbours: _Optional[_Iterable[_Union[RankedTrack, _Mapping]]] = ..., users_reached: _Optional[int] = ..., notes: _Optional[_Iterable[str]] = ..., generation: _Optional[str] = ...) -> None: ...

class RecordListensRequest(_message.Message):
    __slots__ = ("listens",)
    LISTENS_FIELD_NUMBER: _ClassVar[int]
    listens: _containers.RepeatedCompositeFieldContainer[Listen]
    def __init__(self, listens: _Optional[_Iterable[_Union[Listen, _Mapping]]] = ...) -> None: ...

class Listen(_message.Message):
    __slots__ = ("user_id", "track_id", "listened_at", "plays", "disliked", "event_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    LISTENED_AT_FIELD_NUMBER: _ClassVar[int]
    PLAYS_FIELD_NUMBER: _ClassVar[int]
    DISLIKED_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    track_id: str
    listened_at: _timestamp_pb2.Timestamp
    plays: float
    disliked: bool
    event_id: str
    def __init__(self, user_id: _Optional[str] = ..., track_id: _Optional[str] = ..., listened_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., plays: _Optional[float] = ..., disliked: _Optional[bool] = ..., event_id: _Optional[str] = ...) -> None: ...

class RecordListensResponse(_message.Message):
    __slots__ = ("recorded", "repeated", "refused")
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    recorded: int
    repeated: int
    refused: _containers.RepeatedCompositeFieldContainer[Refused]
    def __init__(self, recorded: _Optional[int] = ..., repeated: _Optional[int] = ..., refused: _Optional[_Iterable[_Union[Refused, _Mapping]]] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("place", "reason")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    place: int
    reason: str
    def __init__(self, place: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class DeleteTrackRequest(_message.Message):
    __slots__ = ("track_id",)
    TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    track_id: str
    def __init__(self, track_id: _Optional[str] = ...) -> None: ...

class DeleteTrackResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteUserRequest(_message.Message):
    __slots__ = ("user_id",)
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    def __init__(self, user_id: _Optional[str] = ...) -> None: ...

class DeleteUserResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

"""All baselines, in the order in which they are tuned and listed: cheap ones first, as a short budget shows most."""

from eval.baselines.artists import ARTIST_MEAN, ARTIST_POPULARITY, OWN_ARTISTS
from eval.baselines.base import Baseline
from eval.baselines.cease import CEASE
from eval.baselines.dropoutnet import DROPOUTNET
from eval.baselines.ease import EASE
from eval.baselines.elsa import ELSA
from eval.baselines.factors import ALS, BPR
from eval.baselines.ials import IALS
from eval.baselines.knn import BM25, COSINE, TFIDF
from eval.baselines.knn_artists import KNN_ARTISTS
from eval.baselines.lightfm import LIGHTFM, LIGHTFM_FEATURES
from eval.baselines.next_track import NEXT_SUM, RECENT_ARTISTS, SESSIONS, TRANSITIONS
from eval.baselines.profile import PROFILE
from eval.baselines.ridge import RIDGE
from eval.baselines.rp3beta import RP3BETA
from eval.baselines.sasrec import SASREC, SASREC_ARTISTS
from eval.baselines.session_knn import SESSION_KNN

BASELINES: tuple[Baseline, ...] = (
    COSINE,
    TFIDF,
    BM25,
    RP3BETA,
    ARTIST_POPULARITY,
    OWN_ARTISTS,
    RECENT_ARTISTS,
    TRANSITIONS,
    SESSIONS,
    SESSION_KNN,
    NEXT_SUM,
    KNN_ARTISTS,
    PROFILE,
    ALS,
    ARTIST_MEAN,
    RIDGE,
    BPR,
    DROPOUTNET,
    EASE,
    CEASE,
    IALS,
    ELSA,
    LIGHTFM,
    LIGHTFM_FEATURES,
    SASREC,
    SASREC_ARTISTS,
)
NAMES: tuple[str, ...] = tuple(baseline.name for baseline in BASELINES)
WITHOUT_FEATURES: frozenset[str] = frozenset(
    baseline.name for baseline in BASELINES if not baseline.uses_features
)  # plays alone

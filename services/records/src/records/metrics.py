"""The metrics of the records service, and the report that every upload leaves in them and in the log.

The names follow Prometheus' conventions; `common.metrics` has the metrics of every service.
"""

import time
from asyncio import CancelledError
from dataclasses import dataclass, field
from typing import Literal, get_args

import structlog
from prometheus_client import Counter, Gauge, Histogram

from common.metrics import CALL_BUCKETS
from common.problems import InternalError, Problem, name_of

log = structlog.get_logger()

Phase = Literal["waited", "received", "encoded", "stored", "published"]
"""What an upload waits for: a slot, its client, the encoder, the store, and at last its row.

Client, encoder and store work at the same time, so an upload waits only for the slowest of them.
"""

UPLOADS = Counter(
    "waxwing_uploads",
    "Uploads that have ended: `stored`, `replayed`, `cancelled` by a stop, or the name of their problem.",
    ("outcome",),
)
UPLOADS_UNDER_WAY = Gauge("waxwing_uploads_under_way", "Uploads that have a slot.")
UPLOAD_SLOTS = Gauge("waxwing_upload_slots", "Uploads that this instance takes at once.")
UPLOADS_WAITING = Gauge("waxwing_uploads_waiting", "Uploads that wait for a slot.")
PHASE_SECONDS = Counter("waxwing_upload_phase_seconds", "What uploads spent their time on.", ("phase",))
RECEIVED_BYTES = Counter("waxwing_upload_received_bytes", "Bytes of audio that uploads have sent.")
MP3_BYTES = Counter("waxwing_upload_mp3_bytes", "Bytes of MP3 of the uploads that were stored.")
AUDIO_SECONDS = Counter("waxwing_upload_audio_seconds", "Duration of the recordings that were stored.")
REAL_TIME_RATIO = Histogram(
    "waxwing_upload_real_time_ratio",
    "Seconds that a stored upload took for each second of its audio: its client's line and the encoder.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
COMPLETION_SECONDS = Histogram(
    "waxwing_upload_completion_seconds",
    "From the last byte of a stored upload to its link.",
    buckets=CALL_BUCKETS,
)
JOINS = Counter(
    "waxwing_encoder_joins",
    "Places where two segments' MP3s were joined, or could not be.",
    ("result",),
)
ENCODER_THREADS = Gauge("waxwing_encoder_threads", "Threads that encode.")
BUSY_ENCODER_THREADS = Gauge("waxwing_encoder_threads_busy", "Threads that encode at the moment.")
WAITING_AUDIO_BYTES = Gauge("waxwing_encoder_waiting_bytes", "PCM that waits for a thread.")
HELD_MP3_BYTES = Gauge("waxwing_held_mp3_bytes", "MP3 in memory that waits for its upload's credentials.")
STORE_CALL_SECONDS = Histogram(
    "waxwing_store_call_duration_seconds",
    "Calls to the object store that have succeeded.",
    ("call",),
    buckets=CALL_BUCKETS,
)
STORE_CALL_ERRORS = Counter(
    "waxwing_store_call_errors", "Calls to the object store that have failed.", ("call",)
)
LOST_OBJECTS = Counter("waxwing_lost_objects", "Downloads whose object the store did not have.")
SWEEPS = Counter("waxwing_sweeper_rounds", "Rounds of the sweeper.")
SWEEP_ERRORS = Counter("waxwing_sweeper_step_errors", "Steps of the sweeper that have failed.", ("step",))
TOMBSTONES = Gauge("waxwing_tombstones", "Objects of deleted records that the sweeper has not yet seen gone.")
OLDEST_TOMBSTONE_SECONDS = Gauge("waxwing_oldest_tombstone_seconds", "The age of the oldest tombstone.")
LAST_RUN_SECONDS = Gauge(
    "waxwing_last_run_timestamp_seconds",
    "When the last `backup` or `doctor` that has not failed ended, since 1970; 0 without any.",
    ("command",),
)
STORED_BYTES = Gauge("waxwing_stored_bytes", "Bytes of all users' MP3s and originals.")
MAX_STORED_BYTES = Gauge("waxwing_max_stored_bytes", "MAX_TOTAL_BYTES, or +Inf without this limit.")

# A series that begins with its first failure would hide that failure: Prometheus needs the 0 before it.
for _outcome in ("stored", "busy", "unavailable", "upload-interrupted", "internal-error"):
    UPLOADS.labels(_outcome)


@dataclass
class UploadReport:
    """What one upload has spent its time on, and what has become of it."""

    seconds: dict[Phase, float] = field(default_factory=dict)
    received_bytes: int = 0
    mp3_bytes: int = 0
    audio_seconds: float = 0.0
    cuts: int = 0
    missed_joins: int = 0
    _phase: Phase = "waited"
    _began: float = field(default_factory=time.perf_counter)
    _last_byte: float | None = None

    def begin(self, phase: Phase) -> None:
        """Notes that the upload turns to something else."""
        now = time.perf_counter()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._began
        self._phase, self._began = phase, now

    def received_all(self) -> None:
        """Notes that the body has ended."""
        self._last_byte = time.perf_counter()

    def end(self, outcome: str) -> None:
        """Counts the upload, and logs one line for it."""
        self.begin(self._phase)
        UPLOADS.labels(outcome).inc()
        RECEIVED_BYTES.inc(self.received_bytes)
        for phase, seconds in self.seconds.items():
            PHASE_SECONDS.labels(phase).inc(seconds)
        if outcome == "stored":
            MP3_BYTES.inc(self.mp3_bytes)
            AUDIO_SECONDS.inc(self.audio_seconds)
            JOINS.labels("made").inc(self.cuts - self.missed_joins)
            JOINS.labels("missed").inc(self.missed_joins)
            REAL_TIME_RATIO.observe(sum(self.seconds.values()) / self.audio_seconds)
            COMPLETION_SECONDS.observe(self._began - (self._last_byte or self._began))
        log.info(
            "upload",
            outcome=outcome,
            received_bytes=self.received_bytes,
            mp3_bytes=self.mp3_bytes,
            audio_seconds=round(self.audio_seconds, 3),
            **{f"{phase}_seconds": round(self.seconds.get(phase, 0.0), 3) for phase in get_args(Phase)},
        )


def name_outcome(error: BaseException) -> str:
    """Returns the outcome of an upload that an exception has ended."""
    if isinstance(error, CancelledError):
        return "cancelled"
    return name_of(error if isinstance(error, Problem) else InternalError)

"""The settings of the records service."""

import os
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from common.settings import PositiveInt, Seconds, ServiceSettings, SettingsError

# The bitrates of MPEG-1 Layer III. The lower versions of MPEG have fewer; there LAME takes the nearest.
BitrateKbps = Literal[32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
# An original goes to the store in upload parts of 5 MiB (records.storage), and S3 takes 10,000 of them.
MAX_ORIGINAL_BYTES = 10_000 * 5 * 1024**2

# nginx gets the host in its configuration.
_ENDPOINT = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?/?")
_PORTS = {"http": 80, "https": 443}

# See Settings.lease_seconds.
DEFAULT_LEASE_SECONDS = 30


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The object store: MinIO, or any other S3."""

    # Of one node, or of several nodes of the same store with commas between.
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    s3_bucket: str = "records"
    s3_region: str = "us-east-1"

    def __post_init__(self) -> None:
        """Raises SettingsError if an endpoint is wrong, or if these cannot be nodes of one store."""
        nodes = set[tuple[str | None, int]]()
        for endpoint in self.endpoints:
            if not _is_endpoint(endpoint):
                # Before an @ may be a key.
                _, at, shown = endpoint.rpartition("@")
                shown = f"…@{shown}" if at else endpoint
                raise SettingsError(f"S3_ENDPOINT: {shown!r} is no endpoint: write it like http://minio:9000")
            url = urlsplit(endpoint)
            node = url.hostname, url.port or _PORTS[url.scheme]
            if node in nodes:
                raise SettingsError(f"S3_ENDPOINT: {endpoint} is named twice")
            nodes.add(node)
        if len({urlsplit(endpoint).scheme for endpoint in self.endpoints}) > 1:
            raise SettingsError("S3_ENDPOINT: all nodes of a store must have the same scheme, http or https")

    @property
    def endpoints(self) -> list[str]:
        """The endpoint of each node, without a slash at its end."""
        return [each.strip().removesuffix("/") for each in self.s3_endpoint.split(",")]


def _is_endpoint(text: str) -> bool:
    try:
        return bool(_ENDPOINT.fullmatch(text) and urlsplit(text).hostname and urlsplit(text).port != 0)
    except ValueError:
        return False


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """The settings of one instance of the service."""

    store: StoreSettings
    # accel: nginx sends the bytes of a download (X-Accel-Redirect). stream: the service sends them, without
    # nginx.
    downloads: Literal["accel", "stream"] = "accel"
    # Of a request body. The gateway has the same limit.
    max_upload_bytes: PositiveInt = 4 * 1024**3
    # Of a recording. At a low sample rate, a small WAV lasts long and becomes a large MP3.
    max_duration_seconds: Seconds = 24 * 60 * 60
    # The bitrate of an upload that requests none, and the range of what an upload may request.
    default_bitrate_kbps: BitrateKbps = 128
    min_bitrate_kbps: BitrateKbps = 32
    max_bitrate_kbps: BitrateKbps = 320
    # Whether an upload that does not say it keeps its original. never: none can, and a wish is 403.
    keep_originals: Literal["false", "true", "never"] = "false"
    # Uploads at once; fewer if the container's memory limit does not allow as many (records.memory).
    max_uploads: PositiveInt = 32
    # Uploads that wait for one of these to end, and for how long. The gateway would give up after 60 s.
    max_waiting_uploads: Annotated[int, msgspec.Meta(ge=0)] = 32
    upload_wait_seconds: Annotated[int, msgspec.Meta(ge=1, le=50)] = 30
    # Uploads at once of one user, also those that wait.
    max_uploads_per_user: PositiveInt = 8
    # What all users together may store; None: without limit.
    max_total_bytes: PositiveInt | None = None
    # An upload ends if its client sends less than this per second, on average over so many seconds of waiting
    # for it, or if the whole upload takes longer than `max_upload_seconds`.
    min_upload_bytes_per_second: PositiveInt = 1024
    slow_upload_seconds: Seconds = 30
    max_upload_seconds: Seconds = 24 * 60 * 60
    # Uploads at once whose credentials follow the audio, how much MP3 all of them together may hold in memory
    # meanwhile, and how soon the credentials must follow. One address gets at most half of what others leave.
    max_late_credentials: PositiveInt = 8
    max_held_bytes: PositiveInt = 128 * 1024**2
    late_credentials_seconds: Seconds = 600
    encoder_threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] = os.cpu_count() or 1
    # If a call to the object store fails in passing, an upload repeats the call for so long
    # (records.storage).
    store_retry_seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 15
    # After this long without a renewal another upload may take the Idempotency-Key. The sweeper waits longer.
    lease_seconds: Seconds = DEFAULT_LEASE_SECONDS
    sweep_seconds: Seconds = 30
    # The sweeper deletes a record so many days after its publishing; None: never. At most a century.
    retention_days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] | None = None

    @property
    def has_quota(self) -> bool:
        """Whether any limit of what is stored counts for every user."""
        limits = (self.quota_records, self.quota_bytes, self.quota_seconds, self.max_total_bytes)
        return any(limit is not None for limit in limits)

    def __post_init__(self) -> None:
        """Raises SettingsError if the default bitrate is out of range, or an original can be too large."""
        if not self.min_bitrate_kbps <= self.default_bitrate_kbps <= self.max_bitrate_kbps:
            raise SettingsError(
                f"DEFAULT_BITRATE_KBPS: {self.default_bitrate_kbps} is not between MIN_BITRATE_KBPS"
                f" ({self.min_bitrate_kbps}) and MAX_BITRATE_KBPS ({self.max_bitrate_kbps})"
            )
        if self.keep_originals != "never" and self.max_upload_bytes > MAX_ORIGINAL_BYTES:
            raise SettingsError(
                f"MAX_UPLOAD_BYTES: {self.max_upload_bytes} is more than an original may have"
                f" ({MAX_ORIGINAL_BYTES}). Lower it, or set KEEP_ORIGINALS=never"
            )

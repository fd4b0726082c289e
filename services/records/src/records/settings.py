"""The settings of the records service, and of the set-up step that runs before it."""

import os
from typing import Annotated, Literal

import msgspec

from common.settings import PositiveInt, PublicUrl, ServiceSettings, SettingsError

# Those of MPEG-1 Layer III. The lower versions of MPEG have fewer; LAME then takes the nearest.
BitrateKbps = Literal[32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the MP3s are kept: MinIO, or any other S3."""

    s3_endpoint: Annotated[str, msgspec.Meta(pattern=r"^https?://[^/]+/?$")]
    s3_access_key: str
    s3_secret_key: str
    s3_bucket: str = "records"
    s3_region: str = "us-east-1"


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """How uploads are taken and downloads answered."""

    store: StoreSettings
    # accel: nginx sends the bytes (X-Accel-Redirect); stream: this process does, for running without nginx.
    downloads: Literal["accel", "stream"] = "accel"
    # The whole request body; the gateway is given the same number.
    max_upload_bytes: PositiveInt = 4 * 1024**3
    # Of a recording. At a low sample rate a small WAV lasts long and becomes a large MP3.
    max_duration_seconds: PositiveInt = 24 * 60 * 60
    # What an upload gets, and the range of what it may ask for.
    default_bitrate_kbps: BitrateKbps = 128
    min_bitrate_kbps: BitrateKbps = 32
    max_bitrate_kbps: BitrateKbps = 320
    # Uploads at once; each holds at most three parts of MP3 (15 MiB) and what waits for the encoder, or what
    # `max_held_bytes` says.
    max_uploads: PositiveInt = 32
    # Uploads that may wait for their credentials at once, because these stand behind the audio in the
    # form, and how much MP3 each may hold in memory meanwhile.
    max_late_credentials: PositiveInt = 2
    max_held_bytes: PositiveInt = 64 * 1024**2
    encoder_threads: PositiveInt = os.cpu_count() or 1
    # An upload that has not renewed its lease for so long is given up by the sweeper.
    lease_seconds: PositiveInt = 120
    sweep_seconds: PositiveInt = 30

    def __post_init__(self) -> None:
        """Raises SettingsError where the default bitrate could not be asked for."""
        if not self.min_bitrate_kbps <= self.default_bitrate_kbps <= self.max_bitrate_kbps:
            raise SettingsError(
                f"DEFAULT_BITRATE_KBPS: {self.default_bitrate_kbps} is not between MIN_BITRATE_KBPS"
                f" ({self.min_bitrate_kbps}) and MAX_BITRATE_KBPS ({self.max_bitrate_kbps})"
            )


class SetupSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the set-up step needs: the owners' credentials, and those that it makes for the services."""

    store: StoreSettings
    public_url: PublicUrl = ""
    allowed_hosts: str = ""
    # As the owner of the schema, with the owner's password.
    database_url: str
    postgres_password: str
    users_database_password: str
    records_database_password: str
    # MinIO's root credentials, to make the bucket and its key; without them both must exist.
    minio_root_user: str = ""
    minio_root_password: str = ""

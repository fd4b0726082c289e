"""How the object store is addressed, without one."""

import pytest

from records.settings import StoreSettings
from records.storage import ObjectStore, make_client, make_session


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:9000",
        "https://s3.example",
        # These the library would address as records.s3.…, which the gateway knows nothing of.
        "https://s3.eu-central-1.amazonaws.com",
        "https://oss-eu-central-1.aliyuncs.com",
    ],
)
async def test_the_bucket_stands_in_the_path_whatever_the_endpoint(endpoint: str) -> None:
    settings = StoreSettings(
        s3_endpoint=endpoint,
        s3_access_key="key",
        s3_secret_key="secret",
        s3_region="eu-central-1",
    )
    async with make_session() as session:
        store = ObjectStore(make_client(settings, session), settings.s3_bucket)
        presigned = await store.presign("user/record.mp3")
    assert presigned.startswith("/records/user/record.mp3?X-Amz-Algorithm=")

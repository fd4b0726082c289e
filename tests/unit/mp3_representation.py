"""An MP3 as HTTP sees it, and dates around its last modification, for conditions and ranges."""

from datetime import UTC, datetime

from records.conditions import Representation

ETAG = "ab" * 32
MP3 = Representation(ETAG, datetime(2026, 11, 21, 12, 0, tzinfo=UTC), 1000)
SAME, LATER, EARLIER = (f"Sat, 21 Nov 2026 {hour}:00:00 GMT" for hour in (12, 13, 11))
HUGE = "Mon, 01 Jan 2020 00:00:99999999999999999999999999 GMT"

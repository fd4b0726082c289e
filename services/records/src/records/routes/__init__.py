"""The HTTP handlers of the records service, by subject."""

from records.routes.links import get_lost_object, get_record_audio, get_record_waveform
from records.routes.listen import get_record_page, get_record_picture, get_unchecked_picture, with_pages
from records.routes.originals import get_lost_original, get_record_original, remove_record_original
from records.routes.records import get_record, get_records, patch_record, remove_record
from records.routes.running_service import RunningService
from records.routes.uploads import post_record

HANDLERS = (
    *(post_record, get_records, get_record, patch_record, remove_record),
    *(get_record_audio, get_record_waveform, get_lost_object),
    *(get_record_page, get_record_picture, get_unchecked_picture),
    *(get_record_original, remove_record_original, get_lost_original),
)

__all__ = ["HANDLERS", "RunningService", "with_pages"]

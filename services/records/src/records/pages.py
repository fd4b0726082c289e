"""Makes the pages behind a link for a browser: the page of a record, and the page of a link that fails."""

from functools import cache
from typing import Any, Literal
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from records.documents import RecordDocument

Language = Literal["en", "ru"]
LANGUAGES: tuple[Language, ...] = ("en", "ru")
HTML_TYPE = "text/html"
# A page and its files may not load anything from elsewhere, and no script or style stands in the HTML. The
# URL of a page is a link, so no other site may learn it, and no search engine may list it.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "private, no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
# These stay, however often the browser tries.
REFUSED = (405, 412, 421)
WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "untitled": "Untitled",
        "download": "Download MP3",
        "link": "Link to the MP3",
        "400": "This link is not complete",
        "400 advice": "Copy it again, from its first character to its last.",
        "404": "There is no recording here",
        "404 advice": "It has been deleted, or the link is not complete.",
        "410": "This recording is lost",
        "410 advice": "Tell whoever sent you the link.",
        "refused": "This link does not work",
        "refused advice": "Open it exactly as it was given.",
        "other": "This does not work now",
        "other advice": "Try again in a moment.",
    },
    "ru": {
        "untitled": "Без названия",
        "download": "Скачать MP3",
        "link": "Ссылка на MP3",
        "400": "Ссылка неполная",
        "400 advice": "Скопируйте её ещё раз: от первого знака до последнего.",
        "404": "Здесь нет записи",
        "404 advice": "Её удалили, или ссылка неполная.",
        "410": "Эта запись утрачена",
        "410 advice": "Сообщите тому, кто прислал вам ссылку.",
        "refused": "Эта ссылка не работает",
        "refused advice": "Откройте её точно так, как вам её дали.",
        "other": "Сейчас не получается",
        "other advice": "Попробуйте чуть позже.",
    },
}


def make_record_page(record: RecordDocument, language: Language) -> bytes:
    """Returns the page of a record, whose URLs have an origin. It plays without JavaScript too."""
    words = WORDS[language]
    return _render(
        "record.html",
        language,
        record=record,
        title=record.title or words["untitled"],
        duration=_format_duration(record.duration_seconds),
        # The page plays from where it was opened, whatever name links have.
        path=f"/record?{urlsplit(record.url).query}",
        picture_url=record.listen_url.replace("/listen?", "/listen.png?", 1),
    )


def make_refusal_page(status: int, request_id: str, language: Language) -> bytes:
    """Returns the page of a link that gets this status."""
    kind = str(status)
    if kind not in WORDS[language]:
        kind = "refused" if status in REFUSED else "other"
    advice = WORDS[language][f"{kind} advice"]
    return _render(
        "refusal.html",
        language,
        title=WORDS[language][kind],
        advice=advice,
        status=status,
        request_id=request_id,
    )


def _format_duration(seconds: float) -> str:
    """Returns a duration such as 3:05 or 1:00:00, as the pages of the gateway write it."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _render(template: str, language: Language, **values: Any) -> bytes:
    page = _environment().get_template(template)
    return page.render(language=language, words=WORDS[language], **values).encode()


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("records"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )

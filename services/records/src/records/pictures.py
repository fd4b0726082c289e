"""Draws the picture of a record for previews of its page: the waveform, as a PNG of 1,200 by 630 pixels."""

from io import BytesIO

from PIL import Image, ImageDraw

from records.audio import Waveform

PNG_TYPE = "image/png"
# The size that sites expect of og:image.
WIDTH, HEIGHT = 1200, 630
# The picture is drawn twice as large and then reduced, so that its edges are smooth.
SCALE = 2
GROUND, ACCENT = (0x16, 0x13, 0x0E), (0xF2, 0xB2, 0x37)
# The picture has 256 colours, from GROUND to ACCENT.
DARKEST, BRIGHTEST = 0, 255
PALETTE = [
    low + (high - low) * level // BRIGHTEST
    for level in range(BRIGHTEST + 1)
    for low, high in zip(GROUND, ACCENT, strict=True)
]
MARGIN, MAX_BARS = 80, 105
BAR_SHARE = 0.6
TALLEST_BAR = 340
# Digital silence is a row of dots, and a quiet recording stays a quiet one.
QUIETEST = 0.05
ICON_SIZE = 72
# The bars of the icon: the middle of each, and half its height, as shares of the icon.
ICON_BARS = ((7, 2), (11.5, 6), (16, 10), (20.5, 5), (25, 2))
ICON_UNITS = 32


def draw_waveform(waveform: Waveform) -> bytes:
    """Returns the PNG. It takes about 20 ms of one core."""
    values = waveform.coarsen(max_pixels=MAX_BARS).values()
    peaks = [max(-low, high) / 128 for low, high in zip(values[::2], values[1::2], strict=True)]
    loudest = max(*peaks, QUIETEST)
    image = Image.new("L", (WIDTH * SCALE, HEIGHT * SCALE), DARKEST)
    draw = ImageDraw.Draw(image)
    pitch = (WIDTH - 2 * MARGIN) / len(peaks)
    for number, peak in enumerate(peaks):
        width = pitch * BAR_SHARE
        middle = MARGIN + (number + 0.5) * pitch
        _draw_bar(draw, middle, HEIGHT / 2, width, max(width, peak / loudest * TALLEST_BAR), BRIGHTEST)
    _draw_icon(draw)
    image = image.reduce(SCALE)
    image.putpalette(PALETTE)
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _draw_icon(draw: ImageDraw.ImageDraw) -> None:
    """Draws the icon of the pages (deploy/gateway/site/icon.svg) into the lower right corner."""
    left, top = WIDTH - MARGIN / 2 - ICON_SIZE, HEIGHT - MARGIN / 2 - ICON_SIZE
    unit = ICON_SIZE / ICON_UNITS
    box = [SCALE * each for each in (left, top, left + ICON_SIZE, top + ICON_SIZE)]
    draw.rounded_rectangle(box, SCALE * 9 * unit, BRIGHTEST)
    for middle, half in ICON_BARS:
        height = (2 * half + 3) * unit
        _draw_bar(draw, left + middle * unit, top + ICON_SIZE / 2, 3 * unit, height, DARKEST)


def _draw_bar(draw: ImageDraw.ImageDraw, x: float, y: float, width: float, height: float, level: int) -> None:
    box = [SCALE * each for each in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)]
    draw.rounded_rectangle(box, SCALE * width / 2, level)

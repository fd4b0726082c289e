"""Draws the figures of docs/parallel-encoding.md into docs/images/parallel: `just figures`.

The services' code encodes a minute of the tests' music in four segments. The cuts are at fixed places, so the
same code draws the same figures.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from records.audio.encoder import Encoder
from records.audio.join import LEAD_OUT_MP3_FRAMES, Mp3Frames, lead_in_mp3_frames
from tests.bench.charts import SCHEMES, Colours
from tests.unit.serial_encoding import DECODER_DELAY, Samples, decode, encode, encode_in_segments, music

FOLDER = Path(__file__).parents[2] / "docs" / "images" / "parallel"
STREAM = (44100, 2, 128)
SECONDS = 60
MP3_FRAME_SAMPLES = 1152
CUTS = [574, 1148, 1722]
# A point of the curve is the mean over so many MP3 frames: a fifth of a second.
POINT_MP3_FRAMES = 8


def main() -> None:
    samples = music(SECONDS, 44100, 2)
    serial = encode(samples, STREAM)
    joined, joins = encode_in_segments(samples, STREAM, CUTS)
    serial_snr, joined_snr = snr_db(samples, serial), snr_db(samples, joined)
    reservoirs = measure_reservoirs(samples, CUTS[0])
    FOLDER.mkdir(parents=True, exist_ok=True)
    for scheme, colours in SCHEMES.items():
        with mpl.rc_context():
            mpl.rc("font", size=8)
            mpl.rc("text", color=colours.text)
            mpl.rc("xtick", color=colours.text)
            mpl.rc("ytick", color=colours.text)
            mpl.rc("axes", labelcolor=colours.text, edgecolor=colours.text)
            # Without a fixed salt, each run would name the parts of an SVG anew.
            mpl.rc("svg", fonttype="none", hashsalt="waxwing")
            save(draw_snr(serial_snr, joined_snr, joins, colours), f"snr-{scheme}.svg")
            save(draw_join(*reservoirs, joins[0], colours), f"join-{scheme}.svg")
    differences = joined_snr - serial_snr
    print(f"joined at the MP3 frames {joins}, cut at {CUTS}")
    least, most = differences.min(), differences.max()
    print(f"joined less serial: {least:+.2f} to {most:+.2f} dB, mean {differences.mean():+.3f} dB")


def snr_db(samples: Samples, mp3: bytes) -> NDArray[np.float64]:
    """Returns the signal-to-noise ratio of every POINT_MP3_FRAMES, with the MP3 at its source's level."""
    decoded = decode(mp3)[DECODER_DELAY:]
    size = POINT_MP3_FRAMES * MP3_FRAME_SAMPLES
    count = min(len(samples), len(decoded)) // size
    source, decoded = samples[: count * size] / 32768, decoded[: count * size]
    gain = np.sum(source * decoded) / np.sum(np.square(decoded))
    signal, noise = (
        np.square(each).reshape(count, -1).sum(axis=1) for each in (source, source - gain * decoded)
    )
    ratios: NDArray[np.float64] = 10 * np.log10(signal / noise)
    return ratios


def measure_reservoirs(samples: Samples, cut: int) -> tuple[list[int], list[int], list[int]]:
    """Returns the MP3 frames that both segments at a cut have, and their main_data_begin in A and in B."""
    start, end = cut - lead_in_mp3_frames(STREAM[0], STREAM[2]), cut + LEAD_OUT_MP3_FRAMES
    a, b = Mp3Frames(0), Mp3Frames(start)
    a.append(Encoder(*STREAM).encode(samples[: end * MP3_FRAME_SAMPLES].tobytes()))
    b.append(Encoder(*STREAM).encode(samples[start * MP3_FRAME_SAMPLES : end * MP3_FRAME_SAMPLES].tobytes()))
    both = list(range(start, min(a.end, b.end)))
    return both, [a.main_data_begin(each) for each in both], [b.main_data_begin(each) for each in both]


def draw_snr(
    serial: NDArray[np.float64], joined: NDArray[np.float64], joins: list[int], colours: Colours
) -> Figure:
    figure = Figure(figsize=(6.2, 3.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    times = (np.arange(len(serial)) + 0.5) * POINT_MP3_FRAMES * MP3_FRAME_SAMPLES / STREAM[0]
    upper.plot(times, serial, color=colours.other, linewidth=2, label="one encoder")
    upper.plot(times, joined, color=colours.ours, linewidth=0.8, label="four segments, joined")
    upper.set_ylabel("SNR in dB")
    lower.plot(times, joined - serial, color=colours.ours, linewidth=0.8)
    lower.set_ylabel("difference in dB")
    lower.set_ylim(-6, 6)
    lower.set_xlabel("seconds of the recording; a dotted line is a join")
    for axes in (upper, lower):
        axes.patch.set_visible(False)
        axes.spines[["top", "right"]].set_visible(False)
        for join in joins:
            axes.axvline(
                join * MP3_FRAME_SAMPLES / STREAM[0], color=colours.text, linewidth=0.8, linestyle=":"
            )
    upper.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def draw_join(mp3_frames: list[int], a: list[int], b: list[int], join: int, colours: Colours) -> Figure:
    figure = Figure(figsize=(6.2, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(mp3_frames, a, color=colours.other, marker="s", markersize=3, linewidth=1, label="segment A")
    axes.plot(mp3_frames, b, color=colours.ours, marker="o", markersize=3, linewidth=1, label="segment B")
    axes.axvline(join, color=colours.text, linewidth=0.8, linestyle=":")
    axes.set_xlabel("MP3 frame; the dotted line is where B takes over")
    axes.set_ylabel("main_data_begin in bytes")
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def save(figure: Figure, name: str) -> None:
    figure.savefig(FOLDER / name, transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main()

"""README.md is short, and its numbers are those of tests/bench/RESULTS.md."""

import re

from tests.docs_examples import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "tests/bench/RESULTS.md").read_text(encoding="utf-8")
PAGES = ["README.md", "docs/api.md", "docs/run.md"]


def read_rows(title: str) -> dict[str, tuple[str, str]]:
    """Returns the table below this title: what was measured, the result, and from what."""
    section = re.split(r"\n#+ ", RESULTS.split(f"# {title}\n")[1])[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.*?) \|$", section, re.MULTILINE)
    return {what: (result, source) for what, result, source in rows}


def read_seconds(source: str) -> list[float]:
    """Returns the two times of a ratio, such as `17.130 s / 25.759 s`."""
    return [float(text) for text in re.findall(r"([\d.]+) s", source)]


def test_the_readme_has_at_most_130_lines() -> None:
    assert len(README.splitlines()) <= 130


def test_the_cells_of_tables_are_short_enough_to_read() -> None:
    for page in PAGES:
        rows = re.findall(r"^\|.*\|$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert rows
        for row in rows:
            assert [cell for cell in row.split("|") if len(cell.strip()) > 120] == [], page


def test_the_readme_compares_with_the_numbers_of_the_last_bench() -> None:
    bench = read_rows("The last full run")
    drill = read_rows("The last chaos drill")
    ours, ffmpeg = read_seconds(bench["60 min: request → 201 / ffmpeg"][1])
    pydub = read_seconds(bench["60 min: request → 201 / pydub"][1])[1]
    pydub_mib = int(bench["60 min: memory of pydub over its start"][0].split()[0])
    short, short_ffmpeg = read_seconds(bench["10 s: request → 201 / ffmpeg"][1])
    completion = read_seconds(bench["60 min: last byte → 201 at 10 MB/s"][0])[0]
    assert drill["violations"][0] == "0"
    kills, links = drill["kills"][0], drill["acknowledged"][0].split()[0]
    there, ready = "when the WAV has arrived", "with the transfer"
    rows = [
        f"| {short_ffmpeg:.2f} s, {there} | {short:.2f} s, {ready} |",
        f"| {ffmpeg:.1f} s (pydub {pydub:.1f} s), {there} | {ours:.1f} s, {ready} |",
        f"| those {ffmpeg:.1f} s | {completion:.2f} s: ",
        f"| pydub {pydub_mib:,} MiB; ",
        f"| {bench['60 min: memory of records over idle'][0]}, and no file |",
        f"| {kills} kills in a drill: none of {links} links was lost",
        f"cost {bench['60 min: CPU of records / bare lameenc'][0]} times the CPU of bare LAME",
        f"take {bench['20 x 60 s at once / (20 x bare / 2 cores)'][0]} times as long",
        f"is {bench['download of 9.60 MB, not cached / nginx → MinIO direct'][0]} as fast",
    ]
    text = " ".join(README.split())
    assert [row for row in rows if row not in text] == []

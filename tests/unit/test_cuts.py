"""Where a recording is cut: each condition of `plan_cut`, seen on both sides."""

import pytest

from records.audio.cuts import Progress, plan_cut

# A recording of unknown length, and one idle thread. An MP3 frame lasts 1/40 s: 1.5 s are 60 MP3 frames, and
# 26 s are 1040.
ENDLESS = Progress(
    arrived_mp3_frames=2000,
    fed_mp3_frames=100,
    encoded_mp3_frames=20,
    expected_mp3_frames=float("inf"),
    lead_in_mp3_frames=32,
    mp3_frame_seconds=0.025,
    idle_threads=1,
)
# 600 MP3 frames from the encoder to the end.
SHORT = ENDLESS._replace(arrived_mp3_frames=620, expected_mp3_frames=620)


@pytest.mark.parametrize(
    ("progress", "cut"),
    [
        pytest.param(ENDLESS, 20 + 1040, id="a long recording: 26 s ahead of the encoder"),
        pytest.param(ENDLESS._replace(encoded_mp3_frames=20.9), 1060, id="rounded down to an MP3 frame"),
        pytest.param(ENDLESS._replace(idle_threads=0), None, id="no thread is idle"),
        pytest.param(ENDLESS._replace(idle_threads=-1), None, id="others have taken a thread"),
        pytest.param(ENDLESS._replace(idle_threads=3), 1060, id="more idle threads do not shorten 26 s"),
        pytest.param(
            SHORT._replace(arrived_mp3_frames=160, expected_mp3_frames=300),
            20 + 156,
            id="1.5 s of audio wait",
        ),
        pytest.param(
            SHORT._replace(arrived_mp3_frames=159.9, expected_mp3_frames=300), None, id="less than 1.5 s wait"
        ),
        # Each thread gets an equal share: (600 + 32) / 2, and (600 + 2 * 32) / 3.
        pytest.param(SHORT, 20 + 316, id="two threads share the rest"),
        pytest.param(SHORT._replace(idle_threads=2), 20 + 221, id="three threads share the rest"),
        pytest.param(ENDLESS._replace(expected_mp3_frames=2068), 20 + 1040, id="a share of exactly 26 s"),
        pytest.param(ENDLESS._replace(expected_mp3_frames=2066), 20 + 1039, id="a share of just under 26 s"),
        # The lead-in must not have been fed.
        pytest.param(
            SHORT._replace(fed_mp3_frames=304), 336, id="the lead-in begins where feeding has ended"
        ),
        pytest.param(SHORT._replace(fed_mp3_frames=304.1), 337, id="a lead-in that was fed moves the cut"),
        # A lead-in of audio must remain behind the cut.
        pytest.param(
            SHORT._replace(fed_mp3_frames=500, expected_mp3_frames=500 + 64), 532, id="a lead-in remains"
        ),
        pytest.param(
            SHORT._replace(fed_mp3_frames=500, expected_mp3_frames=500 + 63.9), None, id="less remains"
        ),
        # The new segment must have an MP3 frame to start with.
        pytest.param(
            ENDLESS._replace(arrived_mp3_frames=1060 - 32 + 1), 1060, id="the lead-in has begun to arrive"
        ),
        pytest.param(
            ENDLESS._replace(arrived_mp3_frames=1060 - 32 + 0.9), None, id="the lead-in has not arrived"
        ),
    ],
)
def test_a_recording_is_cut_only_where_it_pays(progress: Progress, cut: int | None) -> None:
    assert plan_cut(progress) == cut

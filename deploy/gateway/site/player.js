// Plays one track at a time, and tells the browser's media controls what plays (Media Session).

/**
 * @typedef {object} Track
 * @property {string} url
 * @property {number} seconds how long it lasts
 * @property {() => string} getTitle
 * @property {() => void} onChange is called when the track plays, pauses or moves
 * @property {() => void} onFailure is called when the browser cannot play it
 * @property {() => void} [onPlay] is called when its sound begins
 */

const audio = new Audio();
audio.preload = "none";
/** @type {Track | null} */
let current = null;

/** @param {Track} track */
export const isPlaying = (track) => track === current && !audio.paused && !audio.ended && !audio.error;

/** @param {Track} track */
export const getPosition = (track) => (track === current ? audio.currentTime : 0);

/** @param {Track} track */
export function toggle(track) {
  if (isPlaying(track)) audio.pause();
  else play(track);
}

/** @param {Track} track */
export function play(track) {
  choose(track);
  if (audio.error) loadAgain();
  // A pause that follows at once interrupts the play, which is no failure.
  audio.play().catch((error) => error.name !== "AbortError" && track.onFailure());
}

/**
 * Moves to a second of a track, which goes on playing if it plays.
 * @param {Track} track
 * @param {number} second
 */
export function seek(track, second) {
  choose(track);
  audio.currentTime = Math.min(Math.max(second, 0), track.seconds);
  track.onChange();
}

/**
 * Stops a track that is taken away.
 * @param {Track} track
 */
export function stop(track) {
  if (track !== current) return;
  audio.pause();
  current = null;
  audio.removeAttribute("src");
  if (navigator.mediaSession) navigator.mediaSession.metadata = null;
}

/** @param {Track} track */
function choose(track) {
  if (track === current) return;
  const before = current;
  audio.pause();
  current = track;
  audio.src = track.url;
  before?.onChange();
  showInMediaControls(track);
}

/** @param {Track} track */
export function showInMediaControls(track) {
  if (!navigator.mediaSession || track !== current) return;
  navigator.mediaSession.metadata = new MediaMetadata({ title: track.getTitle(), artist: "Waxwing" });
}

/** A browser gives up a track that it could not load, although the next try may succeed. */
function loadAgain() {
  const { currentTime } = audio;
  audio.load();
  audio.currentTime = currentTime;
}

/** The position of the track moves smoothly while it plays. */
function follow() {
  current?.onChange();
  if (current && isPlaying(current)) requestAnimationFrame(follow);
}

for (const event of ["play", "pause", "ended", "seeked", "error"]) audio.addEventListener(event, follow);
audio.addEventListener("error", () => current?.onFailure());
audio.addEventListener("playing", () => current?.onPlay?.());

/** @type {[MediaSessionAction, (details: MediaSessionActionDetails) => void][]} */
const controls = [
  ["play", () => current && play(current)],
  ["pause", () => audio.pause()],
  ["seekbackward", ({ seekOffset }) => current && seek(current, audio.currentTime - (seekOffset ?? 10))],
  ["seekforward", ({ seekOffset }) => current && seek(current, audio.currentTime + (seekOffset ?? 10))],
  ["seekto", ({ seekTime }) => current && seek(current, seekTime ?? 0)],
];
for (const [action, act] of controls) navigator.mediaSession?.setActionHandler(action, act);

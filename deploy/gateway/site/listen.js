// A play button and a waveform, in which one seeks: for a record, and for what the microphone has recorded.

import { copyTemplate, find } from "./elements.js";
import { getPosition, isPlaying, play, seek, toggle } from "./player.js";
import { setWords } from "./words.js";

const BAR_PIXELS = 3;
const GAP_PIXELS = 2;
/** As many as a wide screen shows. */
export const PEAKS = 120;
const STEP_SECONDS = 5;
const PAGE_SECONDS = 30;
/** A finger that moves less to the side taps, or scrolls the page. */
const TAP_PIXELS = 10;

/** Whose waveforms are drawn, by their slider. @type {Map<Element, Listen>} */
const drawn = new Map();
/** Tells each size at once and later. To ask a canvas for its size would make the browser lay the whole list out. */
const sizes = new ResizeObserver((changes) => changes.forEach(({ target, contentRect }) => drawn.get(target)?.resize(contentRect)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((listen) => listen.show()));

export class Listen {
  /** @type {number[]} */
  #peaks = [];
  /** Only a waveform in view has one: the browser looks after each in every frame. @type {HTMLCanvasElement | null} */
  #canvas = null;
  #shownSecond = -1;
  #width = 0;
  #height = 0;

  /**
   * @param {HTMLElement} place
   * @param {Omit<import("./player.js").Track, "onChange">} track
   * @param {HTMLElement} position stands before the length, and is filled once the track has begun
   */
  constructor(place, track, position) {
    this.position = position;
    place.replaceChildren(copyTemplate("listen"));
    this.button = find(".play", place);
    this.slider = find(".wave", place);
    this.track = { ...track, onChange: () => this.show() };
    this.slider.ariaValueMax = String(Math.round(track.seconds));
    this.button.addEventListener("click", () => toggle(this.track));
    this.slider.addEventListener("keydown", (event) => this.#useKey(event));
    this.slider.addEventListener("pointerdown", (event) => this.#drag(event));
    this.show();
  }

  /** Shows whether the track plays, and where it is. */
  show() {
    const position = getPosition(this.track);
    const playing = isPlaying(this.track);
    this.button.classList.toggle("is-playing", playing);
    const title = this.track.getTitle();
    setWords(this.button, { label: playing ? "pause.record" : "play.record", values: { title } });
    const second = Math.floor(position);
    this.position.hidden = !playing && !position;
    if (second !== this.#shownSecond) {
      this.#shownSecond = second;
      this.slider.ariaValueNow = String(second);
      setWords(this.position, { words: "position.before", values: { position } });
      setWords(this.slider, { label: "position", spoken: "position.value", values: { title, position, seconds: this.track.seconds } });
    }
    this.#draw(position / this.track.seconds);
  }

  /** Writes the names of button and waveform again, after the track's title has changed. */
  rename() {
    this.#shownSecond = -1;
    this.show();
  }

  /** @param {number[]} peaks from 0 to 1; none when the waveform is out of view */
  setPeaks(peaks) {
    if (!peaks.length && !this.#peaks.length) return;
    this.#peaks = peaks;
    if (peaks.length) {
      this.#canvas ??= this.slider.appendChild(document.createElement("canvas"));
      drawn.set(this.slider, this);
      sizes.observe(this.slider);
    } else {
      this.#canvas?.remove();
      this.#canvas = null;
      drawn.delete(this.slider);
      sizes.unobserve(this.slider);
    }
    this.show();
  }

  /** @param {{width: number, height: number}} size of the waveform in CSS pixels */
  resize({ width, height }) {
    this.#width = width;
    this.#height = height;
    this.show();
  }

  /** @param {KeyboardEvent} event */
  #useKey(event) {
    const position = getPosition(this.track);
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowRight: () => seek(this.track, position + STEP_SECONDS),
      ArrowUp: () => seek(this.track, position + STEP_SECONDS),
      ArrowLeft: () => seek(this.track, position - STEP_SECONDS),
      ArrowDown: () => seek(this.track, position - STEP_SECONDS),
      PageUp: () => seek(this.track, position + PAGE_SECONDS),
      PageDown: () => seek(this.track, position - PAGE_SECONDS),
      Home: () => seek(this.track, 0),
      End: () => seek(this.track, this.track.seconds),
      " ": () => toggle(this.track),
      Enter: () => toggle(this.track),
    };
    if (!(event.key in actions) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  }

  /** @param {PointerEvent} event */
  #drag(event) {
    if (event.button) return;
    /** @param {PointerEvent} at */
    const move = (at) => {
      const { left, width } = this.slider.getBoundingClientRect();
      seek(this.track, ((at.clientX - left) / width) * this.track.seconds);
    };
    // Only a finger that taps or moves sideways means the waveform: one that scrolls the page may begin anywhere.
    let seeks = event.pointerType !== "touch";
    const end = new AbortController();
    this.slider.setPointerCapture(event.pointerId);
    this.slider.addEventListener("pointermove", (at) => {
      seeks ||= Math.abs(at.clientX - event.clientX) > TAP_PIXELS;
      if (seeks) move(at);
    }, { signal: end.signal });
    this.slider.addEventListener("pointerup", (at) => {
      end.abort();
      if (event.pointerType !== "touch") return;
      move(at);
      play(this.track);
    }, { signal: end.signal });
    this.slider.addEventListener("pointercancel", () => end.abort(), { signal: end.signal });
    if (!seeks) return;
    move(event);
    play(this.track);
  }

  /** @param {number} played from 0 to 1 */
  #draw(played) {
    const canvas = this.#canvas;
    const context = canvas?.getContext("2d");
    if (!canvas || !context || !this.#width) return;
    const ratio = devicePixelRatio;
    const width = Math.round(this.#width * ratio);
    const height = Math.round(this.#height * ratio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const style = getComputedStyle(this.slider);
    const [playedColour, otherColour] = ["--played", "--unplayed"].map((name) => style.getPropertyValue(name));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.#width, this.#height);
    const count = Math.floor((this.#width + GAP_PIXELS) / (BAR_PIXELS + GAP_PIXELS));
    const loudest = Math.max(...this.#peaks, 0.05);
    const [playedBars, otherBars] = [new Path2D(), new Path2D()];
    for (let bar = 0; bar < count; bar++) {
      const first = Math.floor((bar / count) * this.#peaks.length);
      const behind = Math.max(first + 1, Math.floor(((bar + 1) / count) * this.#peaks.length));
      const peak = Math.max(...this.#peaks.slice(first, behind)) / loudest;
      const size = Math.max(BAR_PIXELS, peak * this.#height);
      const bars = bar / count < played ? playedBars : otherBars;
      bars.roundRect(bar * (BAR_PIXELS + GAP_PIXELS), (this.#height - size) / 2, BAR_PIXELS, size, BAR_PIXELS / 2);
    }
    context.fillStyle = playedColour;
    context.fill(playedBars);
    context.fillStyle = otherColour;
    context.fill(otherBars);
  }
}

// The panel of the microphone: records, pauses, lets the person listen, and hands the WAV over.

import { find } from "./elements.js";
import { Listen } from "./listen.js";
import { stop } from "./player.js";
import { Recorder } from "./recorder.js";
import { undo } from "./toast.js";
import { say, setWords } from "./words.js";

export class Recording {
  /** @type {Recorder | null} */
  #recorder = null;
  /** What was recorded, before it is sent. @type {{file: File, listen: Listen} | null} */
  #preview = null;
  /** Whether the person is being asked for the microphone. */
  #isAsking = false;
  #panel = find("#recorder");
  #title = /** @type {HTMLInputElement} */ (find("#recording-title"));

  /**
   * @param {(file: File, title: string) => void} onSend
   * @param {AbortSignal} signal ends the panel
   */
  constructor(onSend, signal) {
    this.signal = signal;
    find("#record").addEventListener("click", () => this.#start(), { signal });
    find("#pause").addEventListener("click", () => this.#pause(), { signal });
    find("#stop").addEventListener("click", () => this.#stop(), { signal });
    for (const button of this.#panel.querySelectorAll(".discard")) {
      button.addEventListener("click", () => this.#discard(), { signal });
    }
    find("#preview").onsubmit = (event) => {
      event.preventDefault();
      if (this.#preview) onSend(this.#preview.file, this.#title.value.trim());
      this.end();
    };
  }

  /** Whether something would be lost if the page closed. */
  get isUnsent() {
    return !this.#panel.hidden;
  }

  async #start() {
    const problem = find("#recorder-problem");
    problem.hidden = true;
    if (this.isUnsent || this.#isAsking) return;
    // What was discarded can no longer come back.
    if (this.#preview) undo.end();
    this.end();
    this.#isAsking = true;
    try {
      this.#recorder = await Recorder.start((level) => this.#showLevel(level));
    } catch (error) {
      const name = /** @type {DOMException} */ (error).name;
      setWords(problem, { words: { NotAllowedError: "microphone.denied", SecurityError: "microphone.insecure", AbortError: "problem.no-connection" }[name] ?? "microphone.absent" });
      problem.hidden = false;
      return;
    } finally {
      this.#isAsking = false;
    }
    if (this.signal.aborted) this.end();
    else this.#show("recording");
  }

  #pause() {
    if (!this.#recorder) return;
    this.#recorder.isPaused = !this.#recorder.isPaused;
    this.#show(this.#recorder.isPaused ? "paused" : "recording");
  }

  #stop() {
    const recorder = this.#recorder;
    if (!recorder) return;
    recorder.stop();
    this.#recorder = null;
    const file = recorder.makeWav();
    const track = {
      url: URL.createObjectURL(file),
      seconds: Math.max(recorder.seconds, 0.01),
      getTitle: () => this.#title.value || say("recording"),
      onFailure: () => {},
    };
    const listen = new Listen(find("#preview-player"), track, find("#recorder-position"));
    this.#preview = { file, listen };
    this.#show("recorded");
    listen.setPeaks(recorder.peaks);
    listen.button.focus();
  }

  /** Hides the recording, and gives it up when the time for undoing has passed. */
  #discard() {
    this.#stop();
    const preview = this.#preview;
    if (!preview) return;
    stop(preview.listen.track);
    this.#panel.hidden = true;
    find("#record").focus();
    // A deletion does not lose its end to this message.
    undo.end();
    undo.show({
      words: "discarded",
      button: "undo",
      onButton: () => {
        this.#show("recorded");
        preview.listen.button.focus();
      },
      onEnd: () => this.end(),
      focusNext: () => find("#record").focus(),
    });
  }

  /** Stops the microphone and gives up what was recorded. */
  end() {
    this.#recorder?.stop();
    this.#recorder = null;
    if (this.#preview) {
      stop(this.#preview.listen.track);
      this.#preview.listen.setPeaks([]);
      URL.revokeObjectURL(this.#preview.listen.track.url);
    }
    this.#preview = null;
    this.#title.value = "";
    if (this.#panel.contains(document.activeElement)) find("#record").focus();
    this.#panel.hidden = true;
  }

  /** @param {"recording" | "paused" | "recorded"} state */
  #show(state) {
    const isDone = state === "recorded";
    this.#panel.hidden = false;
    this.#panel.dataset.state = state;
    find("#level").hidden = find("#recorder-controls").hidden = isDone;
    find("#preview").hidden = !isDone;
    setWords(find("#recorder-state"), { words: `recorder.${state}` });
    setWords(find("#pause"), { words: state === "paused" ? "resume" : "pause" });
    if (state === "recording") find("#stop").focus();
  }

  /** @param {number} level from 0 to 1 */
  #showLevel(level) {
    // A last block may come after the end.
    if (!this.#recorder) return;
    // Half of the meter is −30 dBFS, as loud as somebody speaks.
    const shown = level ? Math.max(0, 1 + (20 * Math.log10(level)) / 60) : 0;
    find("#level").ariaValueNow = String(Math.round(shown * 100));
    find("#level div").style.transform = `scaleX(${shown})`;
    setWords(find("#recorder-time"), { words: "time", values: { time: this.#recorder.seconds } });
  }
}

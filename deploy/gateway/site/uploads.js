// Sends files to the records service: two at a time, the others wait. An upload that breaks off is sent again under the
// same Idempotency-Key, so that nothing is made twice.

import { Refusal, makeRefusal } from "./api.js";
import { refuseOtherFile } from "./wav.js";

const AT_ONCE = 2;
// With the usual pause, longer than the lease of an upload whose service was killed.
const TRIES = 10;
/** The speed is that of the last seconds. */
const SPEED_SECONDS = 4;
const CREATED = 201;

/** @typedef {import("./api.js").RecordDocument} RecordDocument */
/** @typedef {"waiting" | "sending" | "finishing" | "pausing" | "failed" | "done" | "cancelled"} State */

/** One file on its way to its record. */
export class Upload {
  /** @type {State} */
  state = "waiting";
  sentBytes = 0;
  bytesPerSecond = 0;
  /** @type {Refusal | null} */
  refusal = null;
  /** Why the file was not sent at all. @type {Awaited<ReturnType<typeof refuseOtherFile>>} */
  unsuitable = null;
  /** @type {RecordDocument | null} */
  record = null;
  tries = 0;
  /** @type {XMLHttpRequest | null} */
  request = null;
  pause = 0;
  #key = makeKey();

  /**
   * @param {File} file
   * @param {string} name
   * @param {Record<string, string>} options the query of the upload
   * @param {boolean} isRecording Whether the microphone has recorded it, so that the file is nowhere else.
   */
  constructor(file, name, options, isRecording = false) {
    this.file = file;
    this.name = name;
    this.options = options;
    this.isRecording = isRecording;
    /** Whether the file would be lost with this page. */
    this.isOnlyCopy = isRecording;
  }

  get isActive() {
    return ["sending", "finishing", "pausing"].includes(this.state);
  }

  /** How long the rest takes at the present speed, in seconds; null while nobody can say. */
  get secondsLeft() {
    return this.bytesPerSecond ? (this.file.size - this.sentBytes) / this.bytesPerSecond : null;
  }

  /**
   * Sends the file once, and returns the record. Throws a Refusal.
   * @param {Record<string, string>} headers
   * @param {() => void} onProgress
   * @returns {Promise<RecordDocument>}
   */
  send(headers, onProgress) {
    const request = (this.request = new XMLHttpRequest());
    const marks = [{ time: performance.now(), bytes: 0 }];
    request.upload.addEventListener("progress", ({ loaded }) => {
      marks.push({ time: performance.now(), bytes: loaded });
      while (marks.length > 2 && marks[0].time < performance.now() - SPEED_SECONDS * 1000) marks.shift();
      const passed = (performance.now() - marks[0].time) / 1000;
      this.sentBytes = loaded;
      this.bytesPerSecond = passed ? (loaded - marks[0].bytes) / passed : 0;
      this.state = loaded < this.file.size ? "sending" : "finishing";
      onProgress();
    });
    return new Promise((resolve, reject) => {
      request.addEventListener("load", () => {
        if (request.status === CREATED) resolve(JSON.parse(request.responseText));
        else reject(makeRefusal(request.status, request.responseText, request.getResponseHeader("Retry-After")));
      });
      for (const event of ["error", "abort"]) request.addEventListener(event, () => reject(new Refusal(0)));
      request.open("POST", `/records?${new URLSearchParams(this.options)}`);
      const all = { ...headers, "Content-Type": "audio/wav", "Idempotency-Key": this.#key };
      for (const [name, value] of Object.entries(all)) request.setRequestHeader(name, value);
      request.send(this.file);
    });
  }
}

/** The queue of all uploads of one user. */
export class Uploads {
  /** @type {Upload[]} */
  #uploads = [];

  /**
   * @param {Record<string, string>} headers with the credentials
   * @param {(upload: Upload) => void} onChange
   */
  constructor(headers, onChange) {
    this.headers = headers;
    this.onChange = onChange;
  }

  get areUnderWay() {
    return this.#uploads.some((upload) => upload.isActive || upload.state === "waiting");
  }

  get haveOnlyCopies() {
    return this.#uploads.some((upload) => upload.isOnlyCopy);
  }

  /** @param {Upload} upload */
  async add(upload) {
    // What the microphone has recorded is a WAV, and stands in the list at once.
    if (!upload.isRecording) upload.unsuitable = await refuseOtherFile(upload.file);
    this.#uploads.push(upload);
    this.#change(upload, upload.unsuitable ? "failed" : "waiting");
  }

  /** @param {Upload} upload */
  cancel(upload) {
    clearTimeout(upload.pause);
    this.#change(upload, "cancelled");
    upload.request?.abort();
  }

  /** @param {Upload} upload */
  retry(upload) {
    clearTimeout(upload.pause);
    upload.tries = 0;
    this.#change(upload, "waiting");
  }

  cancelAll() {
    const all = this.#uploads;
    this.#uploads = [];
    for (const upload of all) this.cancel(upload);
  }

  /**
   * @param {Upload} upload
   * @param {State} state
   */
  #change(upload, state) {
    upload.state = state;
    if (state === "cancelled" || state === "done") this.#uploads = this.#uploads.filter((other) => other !== upload);
    this.onChange(upload);
    const free = AT_ONCE - this.#uploads.filter((other) => other.isActive).length;
    for (const next of this.#uploads.filter((other) => other.state === "waiting").slice(0, free)) this.#run(next);
  }

  /** @param {Upload} upload */
  async #run(upload) {
    Object.assign(upload, { state: "sending", sentBytes: 0, bytesPerSecond: 0, refusal: null, tries: upload.tries + 1 });
    this.onChange(upload);
    try {
      upload.record = await upload.send(this.headers, () => this.onChange(upload));
      this.#change(upload, "done");
    } catch (error) {
      if (upload.state !== "cancelled") this.#fail(upload, /** @type {Refusal} */ (error));
    }
  }

  /**
   * Tries again after a pause, if the same upload may succeed then.
   * @param {Upload} upload
   * @param {Refusal} refusal
   */
  #fail(upload, refusal) {
    upload.refusal = refusal;
    if (!refusal.mayPass || upload.tries >= TRIES) {
      this.#change(upload, "failed");
      return;
    }
    upload.pause = setTimeout(() => this.#run(upload), refusal.pauseMilliseconds);
    this.#change(upload, "pausing");
  }
}

/** Returns 32 random hexadecimal digits. crypto.randomUUID does not exist on pages that came without TLS. */
function makeKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (octet) => octet.toString(16).padStart(2, "0")).join("");
}

// Shows each upload in a row, until it has become a record.

import { copyTemplate, find, saveFile } from "./elements.js";
import { announce, setWords } from "./words.js";

/** @typedef {import("./uploads.js").Upload} Upload */

export class UploadRows {
  /** @type {Map<Upload, HTMLElement>} */
  #rows = new Map();

  /**
   * @param {{cancel: (upload: Upload) => void, retry: (upload: Upload) => void}} actions
   */
  constructor(actions) {
    this.actions = actions;
    this.section = find("#uploads");
    this.list = find("#upload-rows");
  }

  /** @param {Upload} upload */
  show(upload) {
    const row = this.#rows.get(upload) ?? this.#add(upload);
    if (upload.state === "done" || upload.state === "cancelled") this.#remove(upload, row);
    else this.#fill(upload, row);
  }

  /** @param {Upload} upload */
  #add(upload) {
    this.list.append(copyTemplate("upload-row"));
    const row = /** @type {HTMLElement} */ (this.list.lastElementChild);
    find(".name", row).textContent = upload.name;
    find(".cancel", row).addEventListener("click", () => this.actions.cancel(upload));
    find(".again", row).addEventListener("click", () => this.actions.retry(upload));
    find(".save", row).addEventListener("click", () => {
      saveFile(upload.file, upload.name.replace(/(\.wav)?$/i, ".wav"));
      upload.isOnlyCopy = false;
    });
    find("progress", row).ariaLabel = upload.name;
    this.#rows.set(upload, row);
    this.section.hidden = false;
    return row;
  }

  /**
   * @param {Upload} upload
   * @param {HTMLElement} row
   */
  #remove(upload, row) {
    const hadFocus = row.contains(document.activeElement);
    row.remove();
    this.#rows.delete(upload);
    this.section.hidden = !this.#rows.size;
    if (hadFocus) find("#choose").focus();
  }

  /**
   * @param {Upload} upload
   * @param {HTMLElement} row
   */
  #fill(upload, row) {
    const { state, name, refusal, unsuitable } = upload;
    const isWrong = state === "failed" || state === "pausing";
    const progress = /** @type {HTMLProgressElement} */ (find("progress", row));
    progress.hidden = isWrong || state === "waiting";
    if (state === "finishing") progress.removeAttribute("value");
    else progress.value = upload.sentBytes / (upload.file.size || 1);
    row.classList.toggle("is-wrong", state === "failed");
    setWords(find(".state", row), this.#describe(upload));
    const detail = find(".detail", row);
    detail.textContent = refusal?.message ?? "";
    detail.hidden = !isWrong || !refusal?.message;
    const again = find(".again", row);
    again.hidden = !isWrong || Boolean(unsuitable ?? refusal?.isFinal);
    setWords(again, { words: "retry", label: "retry.upload", values: { name } });
    const save = find(".save", row);
    save.hidden = !isWrong || !upload.isRecording;
    setWords(save, { words: "save.wav", label: "save.upload", values: { name } });
    const cancel = state === "failed" ? "dismiss" : "cancel";
    setWords(find(".cancel", row), { words: cancel, label: `${cancel}.upload`, values: { name } });
    if (row.dataset.state !== state) {
      row.dataset.state = state;
      this.#announce(upload);
    }
  }

  /**
   * @param {Upload} upload
   * @returns {{words: string, values: import("./words.js").Values}}
   */
  #describe({ state, file, sentBytes, bytesPerSecond, secondsLeft, refusal, unsuitable }) {
    if (unsuitable) return unsuitable;
    if (state === "pausing" && refusal) return { words: "tries-again", values: { reason: refusal.words } };
    if (refusal) return { words: refusal.words, values: {} };
    const words = state === "sending" && secondsLeft !== null ? "upload.sending" : `upload.${state === "sending" ? "starting" : state}`;
    return { words, values: { size: file.size, sent: sentBytes, speed: bytesPerSecond, left: Math.ceil(secondsLeft ?? 0) } };
  }

  /** @param {Upload} upload */
  #announce(upload) {
    const { state, name } = upload;
    if (state === "sending" || state === "finishing") announce(`announce.${state}`, { name });
    if (state === "failed" || state === "pausing") announce(this.#describe(upload).words, this.#describe(upload).values);
  }
}

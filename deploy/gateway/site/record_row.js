// One record in the list: listen, copy the link, download, rename, delete.

import { Refusal, getPeaks } from "./api.js";
import { copyText, copyTemplate, find } from "./elements.js";
import { Listen, PEAKS } from "./listen.js";
import { showInMediaControls } from "./player.js";
import { message } from "./toast.js";
import { say, setWords } from "./words.js";

/** @typedef {import("./api.js").RecordDocument} RecordDocument */

const PASSING_MILLISECONDS = 100;

export class RecordRow {
  /** The waveform, once it has been fetched. @type {Promise<number[]> | null} */
  #peaks = null;
  #isInView = false;

  /**
   * @param {RecordDocument} record
   * @param {import("./api.js").Api} api
   * @param {{onDelete: (event: MouseEvent) => void, onRefused: (refusal: Refusal) => void}} actions
   */
  constructor(record, api, { onDelete, onRefused }) {
    this.record = record;
    this.api = api;
    this.onRefused = onRefused;
    this.element = /** @type {HTMLElement} */ (copyTemplate("record-row").firstElementChild);
    const query = new URLSearchParams({ id: record.id, user: record.user_id });
    this.listen = new Listen(find(".listen", this.element), {
      url: `/record?${query}`,
      seconds: record.duration_seconds,
      getTitle: () => this.title,
      onFailure: () => this.#complain("play.failed"),
      onPlay: () => (find(".notice", this.element).hidden = true),
    }, find(".position", this.element));
    /** @type {HTMLAnchorElement} */ (find(".download", this.element)).href = `/record?${query}&download=1`;
    find(".copy", this.element).addEventListener("click", () => this.#copy());
    find(".delete", this.element).addEventListener("click", onDelete);
    find(".edit", this.element).addEventListener("click", () => this.#edit());
    const form = find(".rename", this.element);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#rename();
    });
    form.addEventListener("keydown", ({ key }) => key === "Escape" && this.#endEdit());
    find(".cancel", form).addEventListener("click", () => this.#endEdit());
    if (record.lost_at) this.#showLoss();
    this.#show();
  }

  get title() {
    return this.record.title ?? say("untitled");
  }

  /** Draws the waveform when the row comes into view, and lets go of it afterwards. @param {boolean} isInView */
  async setInView(isInView) {
    this.#isInView = isInView;
    if (!isInView) {
      this.listen.setPeaks([]);
      return;
    }
    // Rows that one scrolls past need none.
    await new Promise((resolve) => setTimeout(resolve, PASSING_MILLISECONDS));
    if (!this.#isInView) return;
    // A record without a waveform, or a service that is away, leaves a flat line.
    const { id, user_id } = this.record;
    this.#peaks ??= getPeaks(id, user_id, PEAKS).catch(() => new Array(PEAKS).fill(0));
    const peaks = await this.#peaks;
    if (this.#isInView) this.listen.setPeaks(peaks);
  }

  #show() {
    const { title, created_at, duration_seconds, size_bytes, truncated } = this.record;
    const heading = find(".title", this.element);
    delete heading.dataset.words;
    if (title === null) setWords(heading, { words: "untitled" });
    else heading.textContent = title;
    const facts = { length: Math.max(1, Math.round(duration_seconds)), size: size_bytes, when: created_at };
    setWords(find(".measures", this.element), { words: "facts", values: facts });
    find(".early", this.element).hidden = !truncated;
    for (const action of ["copy", "download", "edit", "delete"]) {
      setWords(find(`.${action}`, this.element), { label: `${action}.record`, values: { title: this.title } });
    }
    this.listen.rename();
  }

  #showLoss() {
    this.listen.button.setAttribute("disabled", "");
    this.#complain("problem.lost-record");
  }

  /** @param {string} words */
  #complain(words) {
    const notice = find(".notice", this.element);
    setWords(notice, { words });
    notice.hidden = false;
  }

  async #copy() {
    await copyText(this.record.listen_url);
    message.show({ words: "copied" });
  }

  #edit() {
    const input = /** @type {HTMLInputElement} */ (find(".rename input", this.element));
    input.value = this.record.title ?? "";
    this.#showForm(true);
    // Some browsers do not move the focus to a text that is selected.
    input.focus();
    input.select();
  }

  #endEdit() {
    const hadFocus = find(".rename", this.element).contains(document.activeElement);
    this.#showForm(false);
    // The person may have scrolled away while the title was sent.
    if (hadFocus) find(".edit", this.element).focus({ preventScroll: true });
  }

  /** @param {boolean} isShown */
  #showForm(isShown) {
    find(".rename", this.element).hidden = !isShown;
    find(".title", this.element).hidden = isShown;
    find(".notice", this.element).hidden = true;
  }

  async #rename() {
    const { value } = /** @type {HTMLInputElement} */ (find(".rename input", this.element));
    try {
      this.record = await this.api.renameRecord(this.record.id, value.trim() || null);
    } catch (error) {
      const refusal = /** @type {Refusal} */ (error);
      this.#complain(refusal.words);
      this.onRefused(refusal);
      return;
    }
    this.#show();
    showInMediaControls(this.listen.track);
    this.#endEdit();
  }
}

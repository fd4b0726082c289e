// The list of records: newest first, in pages as one scrolls, searched by title.

import { Refusal } from "./api.js";
import { find } from "./elements.js";
import { stop } from "./player.js";
import { RecordRow } from "./record_row.js";
import { message, undo } from "./toast.js";
import { announce, say, setWords, writeAllWords } from "./words.js";

const TYPING_MILLISECONDS = 250;
/** Pages and waveforms are fetched a little before they come into view. */
const MARGIN = { rootMargin: "600px 0px" };
const PAGE_MARGIN = { rootMargin: "1200px 0px" };

/** A page of the list. It has its rows only near the view: the browser looks after each of them in every frame. */
class Page {
  element = document.createElement("ul");
  #language = document.documentElement.lang;

  /** @param {RecordRow[]} rows with their words */
  constructor(rows) {
    this.rows = rows;
    this.element.className = "rows";
    setWords(this.element, { label: "records.title" });
    this.show();
  }

  get isShown() {
    return this.element.firstChild !== null;
  }

  show() {
    if (this.isShown) return;
    this.element.style.height = "";
    this.element.append(...this.rows.map((row) => row.element));
    // The rows were not in the document when the person chose another language.
    if (this.#language !== document.documentElement.lang) writeAllWords(this.element);
  }

  /** @param {RecordRow} row @param {number} index */
  insert(row, index) {
    if (this.isShown) this.rows[index].element.before(row.element);
    this.rows.splice(index, 0, row);
  }

  /** @param {number} height of the place that the rows leave */
  hide(height) {
    if (this.isShown) this.#language = document.documentElement.lang;
    this.element.style.height = `${height}px`;
    this.element.replaceChildren();
  }
}

export class Records {
  #list = find("#record-rows");
  #problem = find("#records-problem");
  #nothing = find("#nothing");
  #search = /** @type {HTMLInputElement} */ (find("#search"));
  /** @type {Map<Element, RecordRow>} */
  #rows = new Map();
  /** @type {Map<Element, Page>} */
  #pages = new Map();
  /** The next page; null behind the last one. @type {string | null} */
  #cursor = "";
  #request = new AbortController();
  /** What is deleted, although the service may still list it. @type {Set<string>} */
  #deleted = new Set();
  /** What can be undone, with the request of the list where it stood. @type {{row: RecordRow, request: AbortController}[]} */
  #undoable = [];
  #isLoading = false;
  #typing = 0;
  #again = 0;
  #rowsInView = new IntersectionObserver((changes) => this.#showWaveforms(changes), MARGIN);
  #pagesInView = new IntersectionObserver((changes) => this.#showPages(changes), PAGE_MARGIN);
  // Several changes may come at once, and only the last one is true.
  #end = new IntersectionObserver((changes) => changes.at(-1)?.isIntersecting && this.#loadPage(), MARGIN);

  /**
   * @param {import("./api.js").Api} api
   * @param {(refusal: Refusal) => void} onRefused
   */
  constructor(api, onRefused) {
    this.api = api;
    this.onRefused = onRefused;
    this.#search.value = "";
    this.#search.oninput = () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#startAgain(), TYPING_MILLISECONDS);
    };
    this.#startAgain();
  }

  /** Takes the list away. */
  end() {
    this.#request.abort();
    this.#end.disconnect();
    clearTimeout(this.#typing);
    clearTimeout(this.#again);
    this.#clear();
  }

  /**
   * Puts a new record in its place, which is near the top: uploads that began later stand before it. During a search,
   * the service says whether the record matches.
   * @param {import("./api.js").RecordDocument} record
   */
  async add(record) {
    const request = this.#request;
    const wanted = this.#search.value.trim();
    if (wanted) {
      const found = await this.api.getRecords(wanted, "", request.signal).catch(() => null);
      if (!found?.records.some(({ id }) => id === record.id)) {
        if (!this.#request.signal.aborted) message.show({ words: "announce.done", values: { name: record.title ?? say("untitled") } });
        return;
      }
    }
    if (this.#request !== request || this.#findIds().has(record.id)) return;
    const row = this.#makeRow(record);
    row.element.classList.add("is-new");
    row.element.addEventListener("animationend", () => row.element.classList.remove("is-new"));
    this.#insert(row);
    announce("announce.done", { name: row.title });
  }

  /** @param {RecordRow} row */
  #insert(row) {
    const isOlder = (/** @type {RecordRow} */ other) => other.record.created_at < row.record.created_at;
    const page = [...this.#pages.values()].find(({ rows }) => rows.some(isOlder));
    if (page) {
      page.insert(row, page.rows.findIndex(isOlder));
      this.#rowsInView.observe(row.element);
    } else this.#addPage([row]);
    this.#rows.set(row.element, row);
    this.#showCount();
  }

  #startAgain() {
    this.#request.abort();
    clearTimeout(this.#again);
    this.#request = new AbortController();
    this.#isLoading = false;
    this.#cursor = "";
    this.#end.disconnect();
    this.#clear();
    // The observer calls back at once, and again whenever the end of the list comes into view.
    this.#end.observe(find("#more"));
  }

  #clear() {
    for (const row of this.#rows.values()) {
      stop(row.listen.track);
      row.setInView(false);
    }
    this.#pagesInView.disconnect();
    this.#rowsInView.disconnect();
    this.#rows.clear();
    this.#pages.clear();
    this.#list.replaceChildren();
    this.#problem.hidden = this.#nothing.hidden = true;
  }

  async #loadPage() {
    if (this.#isLoading || this.#cursor === null) return;
    this.#isLoading = true;
    const { signal } = this.#request;
    try {
      const page = await this.api.getRecords(this.#search.value.trim(), this.#cursor, signal);
      this.#cursor = page.next_cursor;
      const known = this.#findIds();
      const further = page.records.filter(({ id }) => !known.has(id) && !this.#deleted.has(id));
      if (further.length) this.#addPage(further.map((record) => this.#makeRow(record)));
      this.#problem.hidden = true;
      this.#showCount();
      this.#isLoading = false;
      // A page may end above the lower edge; only then does the observer see the end again.
      this.#end.unobserve(find("#more"));
      this.#end.observe(find("#more"));
    } catch (error) {
      if (signal.aborted) return;
      this.#isLoading = false;
      const refusal = /** @type {Refusal} */ (error);
      this.#showRefusal(refusal);
      if (!refusal.mayPass) return;
      setWords(this.#problem, { words: "tries-again", values: { reason: refusal.words } });
      this.#again = setTimeout(() => this.#loadPage(), refusal.pauseMilliseconds);
    }
  }

  /** @param {RecordRow[]} rows */
  #addPage(rows) {
    const page = new Page(rows);
    this.#pages.set(page.element, page);
    this.#list.append(page.element);
    // The observer calls back at once, and again whenever the page comes into view or leaves it.
    this.#pagesInView.observe(page.element);
  }

  /** @param {Page} page */
  #showPage(page) {
    page.show();
    for (const { element } of page.rows) this.#rowsInView.observe(element);
  }

  /** @param {Page} page @param {number} height */
  #hidePage(page, height) {
    page.hide(height);
    for (const row of page.rows) {
      this.#rowsInView.unobserve(row.element);
      row.setInView(false);
    }
  }

  /** @param {IntersectionObserverEntry[]} changes */
  #showPages(changes) {
    for (const { target, isIntersecting, boundingClientRect } of changes) {
      const page = this.#pages.get(target);
      if (!page) continue;
      if (isIntersecting) this.#showPage(page);
      // The keyboard must not lose its place.
      else if (!target.contains(document.activeElement)) this.#hidePage(page, boundingClientRect.height);
    }
  }

  /** A page may have a record that was uploaded meanwhile, and is in the list already. */
  #findIds() {
    return new Set([...this.#rows.values()].map((row) => row.record.id));
  }

  /** @param {Refusal} refusal */
  #showRefusal(refusal) {
    setWords(this.#problem, { words: refusal.words });
    this.#problem.hidden = false;
    this.onRefused(refusal);
  }

  #showCount() {
    this.#nothing.hidden = this.#rows.size > 0 || this.#cursor !== null;
    const wanted = this.#search.value.trim();
    setWords(this.#nothing, { words: wanted ? "records.none-found" : "records.none", values: { wanted } });
    if (wanted) announce("announce.found", { count: this.#rows.size });
  }

  /** @param {import("./api.js").RecordDocument} record */
  #makeRow(record) {
    const row = new RecordRow(record, this.api, { onDelete: (event) => this.#delete(row, event), onRefused: this.onRefused });
    this.#rows.set(row.element, row);
    return row;
  }

  /**
   * Hides a record, and deletes it when the time for undoing has passed.
   * @param {RecordRow} row
   * @param {MouseEvent} event
   */
  #delete(row, { detail: clicks }) {
    const next = row.element.nextElementSibling ?? row.element.previousElementSibling;
    stop(row.listen.track);
    row.setInView(false);
    row.element.remove();
    this.#takeFromPage(row);
    this.#rows.delete(row.element);
    this.#deleted.add(row.record.id);
    this.#undoable.push({ row, request: this.#request });
    this.#showCount();
    const count = this.#undoable.length;
    const focusNext = () => (next?.isConnected ? find(".play", next) : this.#search).focus({ preventScroll: true });
    undo.show({
      words: count > 1 ? "deleted.several" : "deleted",
      values: { title: row.title, count },
      button: "undo",
      onButton: () => {
        for (const deleted of this.#undoable.splice(0)) this.#putBack(deleted);
        if (row.element.isConnected) find(".delete", row.element).focus();
      },
      onEnd: () => {
        for (const deleted of this.#undoable.splice(0)) this.#deleteNow(deleted);
      },
      focusNext,
    });
    // The keyboard is at once where it can undo. The message waits for it, as it need not for a pointer.
    if (clicks) focusNext();
    else find("button", undo.element).focus();
  }

  /** @param {RecordRow} row */
  #takeFromPage(row) {
    const page = [...this.#pages.values()].find(({ rows }) => rows.includes(row));
    if (!page) return;
    page.rows.splice(page.rows.indexOf(row), 1);
    if (page.rows.length) return;
    // An empty page would leave a gap.
    page.element.remove();
    this.#pagesInView.unobserve(page.element);
    this.#pages.delete(page.element);
  }

  /** @param {{row: RecordRow, request: AbortController}} deleted */
  #putBack({ row, request }) {
    this.#deleted.delete(row.record.id);
    // The list may have gone, or may be another one because the person searched meanwhile.
    if (this.#request.signal.aborted) return;
    if (this.#request !== request) return this.#startAgain();
    // The row was not in the document when the person chose another language.
    writeAllWords(row.element);
    this.#insert(row);
  }

  /** @param {{row: RecordRow, request: AbortController}} deleted */
  async #deleteNow(deleted) {
    await this.api.deleteRecord(deleted.row.record.id).catch((refusal) => {
      // Another tab has deleted it.
      if (refusal.type === "unknown-record") return;
      this.#putBack(deleted);
      this.#showRefusal(refusal);
    });
  }

  /** @param {IntersectionObserverEntry[]} changes */
  #showWaveforms(changes) {
    for (const { target, isIntersecting } of changes) this.#rows.get(target)?.setInView(isIntersecting);
  }
}

// Begins here: shows the welcome or the desk of the person who has signed in, and connects its parts.

import { Api } from "./api.js";
import { find } from "./elements.js";
import { Recording } from "./recording.js";
import { Records } from "./records.js";
import { findSession, forgetSession, watchSession } from "./session.js";
import { message, undo } from "./toast.js";
import { UploadRows } from "./upload_rows.js";
import { Upload, Uploads } from "./uploads.js";
import { welcome } from "./welcome.js";
import { offerLanguages, say, setWords, writeAllWords } from "./words.js";

/** @typedef {import("./api.js").Refusal} Refusal */

const MAX_TITLE_LENGTH = 200;

/** Shows the desk until the person signs out. Returns why, if the token no longer works. */
function work(/** @type {import("./session.js").Session} */ session) {
  const { id, token, name } = session;
  const api = new Api(id, token);
  const end = new AbortController();
  /** @type {PromiseWithResolvers<string | null>} */
  const { promise, resolve } = Promise.withResolvers();

  const leaveIfUnauthorized = (/** @type {Refusal | null} */ refusal) => {
    if (refusal?.isUnauthorized) leaveUnless("signed-out.unsent", "signed-out");
  };
  const records = new Records(api, leaveIfUnauthorized);
  /** @type {Uploads} */
  const uploads = new Uploads(api.headers, (upload) => {
    rows.show(upload);
    if (upload.record) records.add(upload.record);
    leaveIfUnauthorized(upload.refusal);
  });
  const rows = new UploadRows({ cancel: (upload) => uploads.cancel(upload), retry: (upload) => uploads.retry(upload) });
  const send = (/** @type {File} */ file, /** @type {string} */ title, isRecording = false) => {
    const bitrate = /** @type {HTMLSelectElement} */ (find("#bitrate")).value;
    const options = { ...(title && { title }), ...(bitrate && { bitrate_kbps: bitrate }) };
    return uploads.add(new Upload(file, title || file.name, options, isRecording));
  };
  const recording = new Recording((file, title) => send(file, title, true), end.signal);
  const mayLose = () => uploads.haveOnlyCopies || recording.isUnsent;

  /**
   * Leaves, or says that a recording would be lost.
   * @param {string} warning
   * @param {string | null} reason
   */
  function leaveUnless(warning, reason) {
    if (!mayLose()) return leave(reason);
    setWords(find("#recorder-problem"), { words: warning });
    find("#recorder-problem").hidden = false;
  }

  function leave(/** @type {string | null} */ reason) {
    if (end.signal.aborted) return;
    end.abort();
    for (const toast of [message, undo]) toast.end();
    uploads.cancelAll();
    recording.end();
    records.end();
    // Another tab may have signed in as somebody else.
    if (findSession()?.id === id) forgetSession();
    find("#recorder-problem").hidden = true;
    find("#desk").hidden = find("#user").hidden = true;
    resolve(reason);
  }

  takeFiles(send, end.signal);
  const isBusy = () => uploads.areUnderWay || mayLose();
  find("#sign-out").addEventListener("click", () => {
    if (!isBusy() || confirm(say("sign-out.busy"))) leave(null);
  }, { signal: end.signal });
  addEventListener("beforeunload", (event) => isBusy() && event.preventDefault(), { signal: end.signal });
  // A deletion that still could be undone is sent before the page goes.
  addEventListener("pagehide", () => undo.end(), { signal: end.signal });
  watchSession(session, () => leaveUnless("signed-out-elsewhere.unsent", null), end.signal);
  find("#user-name").textContent = name;
  find("#desk").hidden = find("#user").hidden = false;
  return promise;
}

/**
 * Takes files from the picker and from what is dropped anywhere on the page.
 * @param {(file: File, title: string) => Promise<void>} send
 * @param {AbortSignal} signal
 */
function takeFiles(send, signal) {
  const picker = /** @type {HTMLInputElement} */ (find("#files"));
  const title = /** @type {HTMLInputElement} */ (find("#title"));
  const take = async (/** @type {FileList} */ files) => {
    const wanted = title.value.trim();
    title.value = "";
    // The browser empties its list after the event.
    const all = [...files];
    for (const [index, file] of all.entries()) {
      const number = all.length > 1 ? ` ${index + 1}` : "";
      await send(file, wanted ? cut(wanted, number.length) + number : makeTitle(file.name));
    }
  };
  const hover = (/** @type {boolean} */ isOver) => find("#drop").classList.toggle("is-over", isOver);
  find("#choose").addEventListener("click", () => picker.click(), { signal });
  picker.addEventListener("change", async () => {
    await take(/** @type {FileList} */ (picker.files));
    picker.value = "";
  }, { signal });
  document.addEventListener("dragover", () => hover(true), { signal });
  document.addEventListener("dragleave", (event) => event.relatedTarget || hover(false), { signal });
  document.addEventListener("drop", (event) => {
    hover(false);
    if (event.dataTransfer) take(event.dataTransfer.files);
  }, { signal });
}

/** Returns the name of a file as a title that the service takes (common/text.py). @param {string} name */
function makeTitle(name) {
  const visible = name.replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, " ");
  return cut(visible.replace(/\.\w{1,5}$/, "").normalize("NFC").trim());
}

/** @param {string} title @param {number} room for what follows */
const cut = (title, room = 0) => [...title].slice(0, MAX_TITLE_LENGTH - room).join("").trim();

// A file that misses the page must not take its place.
for (const event of ["dragover", "drop"]) document.addEventListener(event, (dropped) => dropped.preventDefault());
offerLanguages(find("#languages"));
writeAllWords(document);
let session = findSession();
/** @type {string | null} */
let reason = null;
// Whoever comes from the other view begins at the heading of this one.
let hasChanged = false;
const begin = (/** @type {string} */ view) => hasChanged && find(`${view} h1`).focus({ preventScroll: true });
for (;;) {
  if (!session) {
    const entered = welcome(reason);
    begin("#welcome");
    session = await entered;
    hasChanged = true;
  }
  const left = work(session);
  begin("#desk");
  reason = await left;
  hasChanged = true;
  session = null;
}

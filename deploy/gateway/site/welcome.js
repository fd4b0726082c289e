// The first view: create a user, or sign in as one.

import { Api, Refusal, createUser } from "./api.js";
import { copyText, find } from "./elements.js";
import { keepSession } from "./session.js";
import { setWords } from "./words.js";

/** @typedef {import("./session.js").Session} Session */

const view = find("#welcome");
const notice = find("#notice");
const signUp = /** @type {HTMLFormElement} */ (find("#sign-up"));
const signIn = /** @type {HTMLFormElement} */ (find("#sign-in"));
const credentials = /** @type {HTMLFormElement} */ (find("#credentials"));

/**
 * Shows the view until the person has signed in.
 * @param {string | null} reason the key of a sentence that says why the person is here again
 * @returns {Promise<Session>}
 */
export function welcome(reason = null) {
  view.hidden = false;
  find("#doors").hidden = false;
  credentials.hidden = true;
  showNotice(reason, find("#doors"));
  return new Promise((resolve) => {
    /** @param {Session} session @param {FormData} answers */
    const enter = (session, answers) => {
      keepSession(session, answers.has("remember"));
      for (const form of [signUp, signIn, credentials]) form.reset();
      view.hidden = credentials.hidden = true;
      resolve(session);
    };
    onSubmit(signUp, async (answers) => {
      const user = await createUser(text(answers, "name"), text(answers, "key"));
      showCredentials(user);
      onSubmit(credentials, async (choices) => enter(user, choices));
    });
    onSubmit(signIn, async (answers) => {
      const [id, token] = [text(answers, "id"), text(answers, "token")];
      const { name } = await new Api(id, token).getUser();
      enter({ id, token, name }, answers);
    });
  });
}

/**
 * Calls `act` with the answers whenever the form is sent, and shows why it fails.
 * @param {HTMLFormElement} form
 * @param {(answers: FormData) => Promise<void>} act
 */
function onSubmit(form, act) {
  form.onsubmit = async (event) => {
    event.preventDefault();
    const button = /** @type {HTMLButtonElement} */ (find("button:not([type])", form));
    button.disabled = true;
    showNotice(null, button);
    try {
      await act(new FormData(form));
    } catch (error) {
      const refusal = /** @type {Refusal} */ (error);
      if (refusal.type === "invalid-sign-up-key") find("#sign-up-key").hidden = false;
      showNotice(refusal.words, button);
    }
    button.disabled = false;
  };
}

/** @param {FormData} answers @param {string} name */
const text = (answers, name) => String(answers.get(name)).trim();

/**
 * Shows a sentence where the person looks.
 * @param {string | null} words
 * @param {Element} next what stands below it
 */
function showNotice(words, next) {
  next.before(notice);
  notice.hidden = !words;
  if (words) setWords(notice, { words });
}

/** @param {Session} user */
function showCredentials({ id, token }) {
  find("#new-id").textContent = id;
  find("#new-token").textContent = token;
  find("#doors").hidden = true;
  credentials.hidden = false;
  find("h2", credentials).focus();
}

// Nobody can find the token out later.
addEventListener("beforeunload", (event) => credentials.hidden || event.preventDefault());
// White space alone is no answer, and the browser says so.
view.addEventListener("change", ({ target }) => {
  const field = /** @type {HTMLInputElement} */ (target);
  field.value = field.value.trim();
});

for (const button of credentials.querySelectorAll("button[data-copy]")) {
  const copy = /** @type {HTMLButtonElement} */ (button);
  copy.addEventListener("click", async () => {
    await copyText(find(`#${copy.dataset.copy}`).textContent ?? "");
    setWords(copy, { words: "copied" });
  });
}

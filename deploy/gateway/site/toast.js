// Short messages at the lower edge: one that only tells something, and one with a button, which waits for the person.

import { find } from "./elements.js";
import { setWords } from "./words.js";

const SECONDS = 5;

/**
 * @typedef {object} Message
 * @property {string} words
 * @property {import("./words.js").Values} [values]
 * @property {string} [button] its words
 * @property {() => void} [onButton]
 * @property {() => void} [onEnd] is called when the message goes without its button
 * @property {() => void} [focusNext] takes the focus where it was before the button had it
 */

class Toast {
  /** @type {Message | null} */
  #message = null;
  #timer = 0;
  #isUnderPointer = false;

  /** @param {string} selector */
  constructor(selector) {
    this.element = find(selector);
    this.element.addEventListener("pointerenter", () => this.#hover(true));
    this.element.addEventListener("pointerleave", () => this.#hover(false));
    for (const event of ["focusin", "focusout"]) this.element.addEventListener(event, () => this.#wait());
    this.element.addEventListener("keydown", (event) => this.#useKey(event));
  }

  /** Shows a message in the place of the one before, which is over without `onEnd`. @param {Message} message */
  show(message) {
    this.#message = message;
    const text = document.createElement("span");
    setWords(text, { words: message.words, values: message.values });
    this.element.replaceChildren(text);
    if (message.button) this.#addButton(message);
    this.#wait();
  }

  /** Ends the present message at once. */
  end() {
    this.#leave(this.#message?.onEnd);
  }

  /** @param {Message} message */
  #addButton({ button, onButton }) {
    const element = document.createElement("button");
    element.type = "button";
    element.className = "secondary";
    setWords(element, { words: button });
    element.addEventListener("click", () => this.#leave(onButton));
    this.element.append(element);
  }

  /** @param {() => void} [act] */
  #leave(act) {
    const message = this.#message;
    clearTimeout(this.#timer);
    this.#message = null;
    this.#isUnderPointer = false;
    const hadFocus = this.#hasFocus;
    this.element.replaceChildren();
    act?.();
    if (hadFocus && document.activeElement === document.body) message?.focusNext?.();
  }

  get #hasFocus() {
    return this.element.contains(document.activeElement);
  }

  /** @param {boolean} isUnderPointer */
  #hover(isUnderPointer) {
    this.#isUnderPointer = isUnderPointer;
    this.#wait();
  }

  /** Lets the time begin, but not before focus and pointer have left the message. */
  #wait() {
    clearTimeout(this.#timer);
    if (!this.#message || this.#isUnderPointer || this.#hasFocus) return;
    this.#timer = setTimeout(() => this.end(), SECONDS * 1000);
  }

  /** Tab goes on where the person was, and Escape ends the message. @param {KeyboardEvent} event */
  #useKey(event) {
    if (event.key === "Escape") this.end();
    if (event.key !== "Tab") return;
    event.preventDefault();
    this.#message?.focusNext?.();
  }
}

export const message = new Toast("#toast");
export const undo = new Toast("#undo");

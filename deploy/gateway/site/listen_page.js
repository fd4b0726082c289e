// The page behind a link: a player with the waveform in the place of the browser's own, and the day as the reader writes it.

import { getPeaks } from "./api.js";
import { find } from "./elements.js";
import { Listen, PEAKS } from "./listen.js";

const article = find("article");
const audio = /** @type {HTMLAudioElement} */ (find("audio", article));
const player = find("#player", article);
const { id, user, seconds } = /** @type {Record<string, string>} */ (article.dataset);

/** Without the waveform, or when the browser cannot play the record here, its own player stays. */
function showOwnPlayer() {
  audio.hidden = false;
  player.hidden = true;
}

const time = /** @type {HTMLTimeElement} */ (find("time", article));
const { lang } = document.documentElement;
const locale = navigator.languages.find((name) => name.startsWith(lang)) ?? lang;
time.textContent = new Intl.DateTimeFormat(locale, { dateStyle: "long" }).format(new Date(time.dateTime));

const peaks = await getPeaks(id, user, PEAKS).catch(() => null);
if (peaks) {
  audio.hidden = true;
  player.hidden = false;
  const position = document.createElement("span");
  find(".facts", article).prepend(position);
  const listen = new Listen(player, {
    url: audio.src,
    seconds: Number(seconds),
    getTitle: () => find("h1", article).textContent ?? "",
    onFailure: showOwnPlayer,
  }, position);
  listen.setPeaks(peaks);
}

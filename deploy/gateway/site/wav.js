// Looks at the first bytes of a file, so that nobody sends gigabytes to learn that they are no WAV. The server decides;
// this only recognises what it surely refuses (records/audio/other_files.py).

const START_BYTES = 16;

/** How other files start: offset, bytes, and the name of the format. @type {[number, string, string][]} */
const OTHER_FILES = [
  [0, "riff\x2e\x91\xcf\x11", "Sony Wave64"],
  [0, "NIST_1A", "NIST SPHERE"],
  [0, "Creative Voi", "Creative Voice"],
  [8, "AIFF", "AIFF"],
  [8, "AIFC", "AIFF-C"],
  [8, "AVI ", "AVI"],
  [4, "ftyp", "MP4, M4A, MOV"],
  [0, "OggS", "Ogg"],
  [0, "fLaC", "FLAC"],
  [0, "caff", "Apple CAF"],
  [0, ".snd", "Sun AU"],
  [0, "wvpk", "WavPack"],
  [0, "MAC ", "Monkey's Audio"],
  [0, "#!AMR", "AMR"],
  [0, "\x1aE\xdf\xa3", "Matroska, WebM"],
  [0, "0&\xb2u", "Windows Media"],
  [0, "\xff\xf1", "AAC"],
  [0, "\xff\xf9", "AAC"],
  [0, "\xff\xf3", "MP3"],
  [0, "\xff\xfb", "MP3"],
  [0, "%PDF", "PDF"],
  [0, "PK\x03\x04", "ZIP"],
  [0, "\x1f\x8b", "gzip"],
  [0, "\x89PNG", "PNG"],
  [0, "\xff\xd8\xff", "JPEG"],
];
/** A WAV may also begin with an ID3 tag, a byte order mark or a line break; only the server reads behind them. */
const PERHAPS_WAV = /^(RIFF|RIFX|RF64|BW64|ID3|\xef\xbb\xbf|\xff\xfe|[\r\n])/;

/**
 * Returns why the file is surely no WAV, or cannot be read, as a key and values of words; null if it may be one.
 * @param {File} file
 * @returns {Promise<{words: string, values: {format: string}} | null>}
 */
export async function refuseOtherFile(file) {
  if (!file.size) return { words: "file.empty", values: { format: "" } };
  const octets = await file.slice(0, START_BYTES).arrayBuffer().catch(() => null);
  if (!octets) return { words: "file.unreadable", values: { format: "" } };
  const start = String.fromCharCode(...new Uint8Array(octets));
  const other = OTHER_FILES.find(([offset, mark]) => start.startsWith(mark, offset));
  if (other) return { words: "file.other", values: { format: other[2] } };
  return PERHAPS_WAV.test(start) ? null : { words: "file.unknown", values: { format: "" } };
}

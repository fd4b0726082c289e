// Records the microphone into a WAV of 48 kHz, mono, 16 bit.

const SAMPLE_RATE = 48000;
const SAMPLE_BYTES = 2;
/** So many blocks become one Blob, which the browser may keep on its disk. */
const BLOCKS_PER_PART = 500;

export class Recorder {
  isPaused = false;
  sampleCount = 0;
  /** The loudest sample of each block, from 0 to 1. @type {number[]} */
  peaks = [];
  /** @type {BlobPart[]} */
  #parts = [];
  /** @type {Int16Array<ArrayBuffer>[]} */
  #blocks = [];

  /**
   * @param {MediaStream} stream
   * @param {AudioContext} context
   * @param {(level: number) => void} onLevel is called with the peak of each block, from 0 to 1
   */
  constructor(stream, context, onLevel) {
    this.stream = stream;
    this.context = context;
    const tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    tap.port.onmessage = ({ data }) => {
      if (!this.isPaused) this.#take(data.samples, data.peak);
      onLevel(this.isPaused ? 0 : data.peak);
    };
    context.createMediaStreamSource(stream).connect(tap);
  }

  /**
   * Asks for the microphone and records. Throws a DOMException if the person or the browser refuses.
   * @param {(level: number) => void} onLevel
   */
  static async start(onLevel) {
    // Browsers give the microphone only to pages from this machine or over TLS.
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    try {
      const context = new AudioContext({ sampleRate: SAMPLE_RATE });
      await context.audioWorklet.addModule("/site/recorder_worklet.js");
      await context.resume();
      return new Recorder(stream, context, onLevel);
    } catch (error) {
      letGo(stream);
      throw error;
    }
  }

  get seconds() {
    return this.sampleCount / SAMPLE_RATE;
  }

  /** Lets go of the microphone. */
  stop() {
    letGo(this.stream);
    this.context.close();
  }

  makeWav() {
    const name = "recording.wav";
    return new File([makeHeader(this.sampleCount * SAMPLE_BYTES), ...this.#parts, ...this.#blocks], name, { type: "audio/wav" });
  }

  /**
   * @param {Int16Array<ArrayBuffer>} samples
   * @param {number} peak
   */
  #take(samples, peak) {
    this.sampleCount += samples.length;
    this.peaks.push(peak);
    this.#blocks.push(samples);
    if (this.#blocks.length < BLOCKS_PER_PART) return;
    this.#parts.push(new Blob(this.#blocks));
    this.#blocks = [];
  }
}

/** @param {MediaStream} stream */
function letGo(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/**
 * Returns the header of a WAV: a fmt chunk of 16 bytes, and the beginning of the data chunk.
 * @param {number} audioBytes
 */
function makeHeader(audioBytes) {
  const header = new DataView(new ArrayBuffer(44));
  /** @type {(at: number, name: string) => void} */
  const name = (at, letters) => [...letters].forEach((letter, index) => header.setUint8(at + index, letter.charCodeAt(0)));
  name(0, "RIFF");
  header.setUint32(4, 36 + audioBytes, true);
  name(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, SAMPLE_RATE, true);
  header.setUint32(28, SAMPLE_RATE * SAMPLE_BYTES, true);
  header.setUint16(32, SAMPLE_BYTES, true);
  header.setUint16(34, 8 * SAMPLE_BYTES, true);
  name(36, "data");
  header.setUint32(40, audioBytes, true);
  return header;
}

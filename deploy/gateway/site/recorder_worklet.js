// Runs in the audio thread: turns the microphone's floats into blocks of 16-bit samples.

// The types of the DOM do not know this thread.
const { AudioWorkletProcessor, registerProcessor } = /** @type {any} */ (globalThis);
const BLOCK_SAMPLES = 1024;

class Tap extends AudioWorkletProcessor {
  samples = new Int16Array(BLOCK_SAMPLES);
  count = 0;
  peak = 0;

  /** @param {Float32Array[][]} inputs */
  process([[channel]]) {
    for (const sample of channel ?? []) {
      const clamped = Math.max(-1, Math.min(1, sample));
      this.samples[this.count++] = Math.round(clamped * 32767);
      this.peak = Math.max(this.peak, Math.abs(clamped));
      if (this.count === BLOCK_SAMPLES) this.send();
    }
    return true;
  }

  send() {
    this.port.postMessage({ samples: this.samples, peak: this.peak }, [this.samples.buffer]);
    this.samples = new Int16Array(BLOCK_SAMPLES);
    this.count = 0;
    this.peak = 0;
  }
}

registerProcessor("tap", Tap);

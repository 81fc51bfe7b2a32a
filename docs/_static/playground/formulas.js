// One row of straight-through selection, by the documented formulas; numbers are float64. For the page and for node.
"use strict";

const npselectFormulas = (() => {
  // The row as npselect has it, with w = logits (+ noise), m the selected index, over the candidates only:
  //   t = (w - w_m) / temp    e = exp(t)    s = sum e    p = e / s
  //   h = g - g_m             d = sum e h / s            grad = e (h - d) / (s temp)
  // A row without candidates is zeros with index -1; with NaN or +inf, or with -inf alone, it is NaN with index -1.
  function row(logits, temp, gradMask, noise = null, where = null) {
    if (!(temp > 0 && temp < Infinity)) throw new RangeError(`temp is ${temp}; it must be positive and finite`);
    const w = logits.map((x, i) => (noise === null ? x : x + noise[i]));
    const offered = w.map((_, i) => where === null || where[i]);
    const fill = (value) => w.map((_, i) => (offered[i] ? value : 0));
    if (!offered.includes(true)) return { w, index: -1, mask: fill(0), probs: fill(0), grad: fill(0) };
    let m = -1;
    for (let i = 0; i < w.length; i++) if (offered[i] && (m < 0 || w[i] > w[m])) m = i;
    if (w.some((x, i) => offered[i] && !(x < Infinity)) || w[m] === -Infinity) {
      const invalid = w.map(() => NaN);
      return { w, index: -1, mask: invalid, probs: invalid, grad: invalid };
    }
    const candidate = w.map((x, i) => offered[i] && x !== -Infinity);
    const e = w.map((x, i) => (candidate[i] ? Math.exp((x - w[m]) / temp) : 0));
    const s = e.reduce((a, b) => a + b, 0);
    const h = gradMask.map((g, i) => (candidate[i] ? g - gradMask[m] : 0));
    const finite = gradMask.every((g, i) => !candidate[i] || Number.isFinite(g));
    const d = finite ? e.reduce((sum, x, i) => sum + x * h[i], 0) / s : NaN;
    const probs = e.map((x) => x / s);
    const grad = e.map((x, i) => (candidate[i] ? ((x / s) * (h[i] - d)) / temp : 0));
    return { w, index: m, mask: w.map((_, i) => (i === m ? 1 : 0)), probs, grad };
  }

  // Philox4x32-10 of (seed, number of the draw), as npselect.noise.gumbel has it.
  function philox(block, seed) {
    const low = 0xffffffffn;
    let [a, b, c, d] = [block & low, block >> 32n, 0n, 0n];
    let [k0, k1] = [seed & low, (seed >> 32n) & low];
    for (let round = 0; round < 10; round++) {
      const left = 0xd2511f53n * a;
      const right = 0xcd9e8d57n * c;
      [a, b, c, d] = [(right >> 32n) ^ b ^ k0, right & low, (left >> 32n) ^ d ^ k1, left & low];
      k0 = (k0 + 0x9e3779b9n) & low;
      k1 = (k1 + 0xbb67ae85n) & low;
    }
    return [a, b, c, d];
  }

  // Standard Gumbel noise: -log(-log(u)), u = ((word >> 11) | 1) / 2**53.
  function gumbel(count, seed) {
    return Array.from({ length: count }, (_, n) => {
      const words = philox(BigInt(n >> 1), BigInt(seed));
      const [lower, upper] = n % 2 ? words.slice(2) : words.slice(0, 2);
      const u = Number((((upper << 32n) | lower) >> 11n) | 1n) * 2 ** -53;
      return -Math.log(-Math.log(u));
    });
  }

  return { row, gumbel };
})();

if (typeof module !== "undefined") module.exports = npselectFormulas;

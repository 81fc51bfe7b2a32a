// The playground: sliders in, one row of `npselectFormulas` out. Every value is text; bars only repeat it.
"use strict";

(() => {
  const START = { logits: [1.0, 3.0, 2.0, 0.5, -1.0], gradMask: [1.0, -2.0, 0.5, 1.5, 0.0], temp: 0.6 };
  const PRESETS = {
    "as at first": START,
    "a tie": { logits: [2.0, 0.0, 2.0, 1.0, -1.0], gradMask: [1.0, 0.0, -1.0, 0.5, 0.0], temp: 0.6 },
    "one leads by far": { logits: [-4.0, 4.0, -4.0, -4.0, -4.0], gradMask: [1.0, -2.0, 0.5, 1.5, 0.0], temp: 0.2 },
    "a constant cotangent": { logits: START.logits, gradMask: [1.0, 1.0, 1.0, 1.0, 1.0], temp: 0.6 },
  };
  const root = document.getElementById("npselect-playground");
  const find = (name) => root.querySelector(`[data-role="${name}"]`);
  const rows = [...root.querySelectorAll("tbody tr")];
  const inputs = (kind) => rows.map((tr) => tr.querySelector(`input[data-kind="${kind}"]`));
  const numbers = (kind) => inputs(kind).map((input) => Number(input.value));
  const temperature = () => Number((10 ** Number(find("temp").value)).toPrecision(2));

  function short(x) {
    if (x === 0) return "0";
    return Math.abs(x) < 0.001 ? x.toExponential(1).replace("-", "−").replace("e-", "e−") : x.toFixed(3).replace("-", "−");
  }

  function bar(tr, kind, value, largest, text) {
    const cell = tr.querySelector(`[data-kind="${kind}"]`);
    cell.querySelector(".value").textContent = text ?? short(value);
    const share = largest > 0 ? Math.min(1, Math.abs(value) / largest) : 0;
    const drawn = cell.querySelector(".bar > span");
    drawn.style.width = `${share * (kind === "grad" ? 50 : 100)}%`;
    if (kind === "grad") drawn.style.left = value < 0 ? `${50 - share * 50}%` : "50%";
    drawn.classList.toggle("negative", value < 0);
  }

  function show() {
    const [logits, gradMask, temp] = [numbers("logits"), numbers("cotangent"), temperature()];
    const noisy = find("noisy").checked;
    const seed = Math.max(0, Math.floor(Number(find("seed").value) || 0));
    const noise = noisy ? npselectFormulas.gumbel(logits.length, seed) : null;
    const { index, mask, probs, grad } = npselectFormulas.row(logits, temp, gradMask, noise);
    const largest = Math.max(...grad.map(Math.abs));
    rows.forEach((tr, i) => {
      for (const kind of ["logits", "cotangent"]) {
        const input = inputs(kind)[i];
        input.parentElement.querySelector(".shown").textContent = Number(input.value).toFixed(1).replace("-", "−");
      }
      tr.querySelector('[data-kind="noise"]').textContent = noisy ? short(noise[i]) : "–";
      tr.querySelector('[data-kind="mask"]').textContent = String(mask[i]);
      tr.classList.toggle("selected", i === index);
      bar(tr, "probs", probs[i], 1);
      bar(tr, "grad", grad[i], largest);
    });
    find("temp-value").textContent = String(temp);
    find("temp").setAttribute("aria-valuetext", `temp ${temp}`);
    find("seed").disabled = !noisy;
    const steepest = grad.map(Math.abs).indexOf(largest);
    find("summary").textContent =
      `Candidate ${index} is selected, with probability ${short(probs[index])}. ` +
      (largest > 0 ? `The gradient is largest at candidate ${steepest}: ${short(grad[steepest])}.` : "The gradient is 0: a constant drops out.");
    const list = (values) => `[${values.join(", ")}]`;
    const operator = noisy ? "gumbel_softmax" : "straight_through";
    find("python").textContent =
      `from npselect import ${operator}\n` +
      `${operator}.backward(${list(gradMask)}, ${list(logits)}, temp=${temp}${noisy ? `, seed=${seed}` : ""})`;
  }

  function set(values) {
    inputs("logits").forEach((input, i) => (input.value = values.logits[i]));
    inputs("cotangent").forEach((input, i) => (input.value = values.gradMask[i]));
    find("temp").value = Math.log10(values.temp);
    show();
  }

  for (const [name, values] of Object.entries(PRESETS)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => set(values));
    find("presets").append(button);
  }
  root.addEventListener("input", show);
  set(START);
})();

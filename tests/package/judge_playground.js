// Judge the playground's formulas by the vectors of float64: `judge(file)` of a parsed file. For node and for a browser.
"use strict";

function judge(file, formulas) {
  const float = (text) => {
    const view = new DataView(new ArrayBuffer(8));
    view.setBigUint64(0, BigInt(`0x${text.slice(4)}`));
    return view.getFloat64(0);
  };
  const floats = (list) => (list === null ? null : list.map(float));
  const found = { cases: 0, rows: 0, entries: 0, worst: 0, faults: [] };
  for (const each of file.cases) {
    // The playground has one temperature: what is sampled with another is the same with noise and temperature times that.
    const forwardTemp = each.settings ? float(each.settings.forward_temp) : 1;
    const temp = forwardTemp * float(each.temp);
    const [logits, drawn, gradMask] = [each.logits, each.noise, each.grad_mask].map(floats);
    const noise = drawn === null ? null : drawn.map((x) => forwardTemp * x);
    found.cases += 1;
    if (each.error !== null) {
      try {
        formulas.row([1, 2], temp, [0, 0]);
        if (each.shape[each.axis < 0 ? each.axis + each.shape.length : each.axis] > 0) found.faults.push(each.id);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
      }
      continue;
    }
    const [mask, grad, bound] = [each.mask, each.grad_logits, each.bound].map(floats);
    const axis = each.axis < 0 ? each.axis + each.shape.length : each.axis;
    const choices = each.shape[axis];
    const inner = each.shape.slice(axis + 1).reduce((a, b) => a * b, 1);
    const count = each.shape.reduce((a, b) => a * b, 1) / (choices || 1);
    for (let r = 0; r < count; r++) {
      const start = Math.floor(r / inner) * choices * inner + (r % inner);
      const places = Array.from({ length: choices }, (_, j) => start + j * inner);
      const take = (values) => (values === null ? null : places.map((place) => values[place]));
      const got = formulas.row(take(logits), temp, take(gradMask), take(noise), take(each.where));
      found.rows += 1;
      const right = take(mask).every((x, i) => Object.is(x, got.mask[i]));
      if (!right) found.faults.push(`${each.id}, row ${r}: mask`);
      places.forEach((place, i) => {
        if (Number.isNaN(grad[place])) {
          if (!Number.isNaN(got.grad[i])) found.faults.push(`${each.id}, row ${r}: ${got.grad[i]}, expected NaN`);
        } else if (each.judged[r]) {
          const error = Math.abs(got.grad[i] - grad[place]);
          found.entries += 1;
          if (!(error <= bound[place])) found.faults.push(`${each.id}, row ${r}, ${i}: ${got.grad[i]}, not ${grad[place]}`);
          else if (bound[place] > 0) found.worst = Math.max(found.worst, error / bound[place]);
        }
      });
    }
  }
  return found;
}

if (typeof module !== "undefined") {
  const { readFileSync } = require("node:fs");
  const [formulas, ...paths] = process.argv.slice(2);
  const all = paths.map((path) => judge(JSON.parse(readFileSync(path, "utf8")), require(formulas)));
  console.log(JSON.stringify(all.map((found) => ({ ...found, faults: found.faults.slice(0, 5) }))));
}

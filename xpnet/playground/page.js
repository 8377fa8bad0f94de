"use strict";

/* What the page shows. All numbers come from network.js. */

const data = JSON.parse(document.getElementById("data").textContent);
const network = new Network(data);
const element = (id) => document.getElementById(id);
const inputSize = product(data.layers[0].input);
const samples = data.samples ? decode(data.samples) : new Float64Array(0);
const sampleCount = samples.length / inputSize;
const outputs = product(data.layers[data.layers.length - 1].output);
const isClass = data.output !== "linear" || outputs > 1;
const trained = network.layers.filter((layer) => layer.trains);

const state = { input: new Float64Array(inputSize), strokes: [], pen: null, target: 0, stage: 0, layer: trained[0], unit: 0, entry: 0, bias: false };

/* ---------------------------------------------------------------- text */

function text(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return (size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(digits))) : value.toExponential(digits - 1)).replace("-", "−");
}

const percent = (p) => `${(100 * p).toFixed(2)} %`;

function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => (name in made ? (made[name] = value) : made.setAttribute(name, value)));
  made.append(...children);
  return made;
}

function option(value, label) {
  return node("option", { value: String(value) }, label);
}

function describeShape(shape) {
  return shape.join(" × ");
}

function layerName(layer) {
  return `${layer.path} ${layer.name}`;
}

/* ---------------------------------------------------------------- pictures */

function color(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

/* Draw numbers as a grid of cells, from the color below 0 to that above 0; null is a gap. */
function paint(canvas, cells, columns, { mark = null, largest = null, label = "", cell = null } = {}) {
  const height = Math.max(1, Math.ceil(cells.length / columns));
  const bound = largest || Math.max(1e-30, ...cells.map((v) => Math.abs(v || 0)));
  const [zero, above, below] = ["--zero", "--positive", "--negative"].map(color);
  canvas.width = columns;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, height);
  const gap = color("--line");
  for (let i = 0; i < columns * height; i++) {
    const value = i < cells.length ? cells[i] : null;
    const share = value === null ? 0 : Math.min(1, Math.abs(value) / bound);
    const end = value === null ? gap : value < 0 ? below : above;
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = value === null ? gap[c] : zero[c] + share * (end[c] - zero[c]);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  const size = cell || Math.max(1, Math.min(12, Math.floor((columns > 40 || height <= 4 ? 300 : 170) / columns)));
  canvas.style.width = `${columns * size}px`;
  canvas.style.height = "auto";
  canvas.setAttribute("aria-label", label || `numbers from ${text(Math.min(...cells))} to ${text(Math.max(...cells))}`);
  if (mark !== null) outline(canvas, mark % columns, Math.floor(mark / columns), size);
}

/* Mark a cell: the canvas is drawn again with larger cells, so that the frame is thin. */
function outline(canvas, column, row, size) {
  const factor = Math.max(4, size);
  const copy = node("canvas", { width: canvas.width, height: canvas.height });
  copy.getContext("2d").drawImage(canvas, 0, 0);
  canvas.width *= factor;
  canvas.height *= factor;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(copy, 0, 0, canvas.width, canvas.height);
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  context.lineWidth = Math.max(2, factor / 6);
  context.strokeRect(column * factor, row * factor, factor, factor);
}

/* The cells of a layer's output: images side by side with a gap, or a vector in rows. Returns [cells, columns]. */
function tiled(values, shape) {
  if (shape.length !== 3) {
    const columns = shape.length === 2 ? shape[1] : imageColumns(values.length);
    return [Array.from(values), columns];
  }
  const [height, width, channels] = shape;
  const across = Math.min(channels, Math.max(1, Math.floor(130 / (width + 1))), 8);
  const down = Math.ceil(channels / across);
  const columns = across * (width + 1) - 1;
  const cells = new Array((down * (height + 1) - 1) * columns).fill(null);
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < height; i++)
      for (let j = 0; j < width; j++) {
        const row = Math.floor(c / across) * (height + 1) + i;
        cells[row * columns + (c % across) * (width + 1) + j] = values[(i * width + j) * channels + c];
      }
  return [cells, columns];
}

function imageColumns(n) {
  return data.picture && n === data.picture[0] * data.picture[1] ? data.picture[1] : Math.min(n, 32);
}

function picture(values, shape, caption) {
  const [cells, columns] = tiled(values, shape);
  const canvas = node("canvas", { role: "img" });
  const numbers = `from ${text(Math.min(...values))} to ${text(Math.max(...values))}`;
  paint(canvas, cells, columns, { label: `${caption}: ${numbers}` });
  return node("figure", {}, canvas, node("figcaption", {}, `${caption}, ${numbers}`));
}

/* ---------------------------------------------------------------- input */

function setInput(values) {
  state.input = Float64Array.from(values);
  if (data.features) [...element("features").querySelectorAll("input")].forEach((box, i) => (box.value = String(Number(state.input[i].toPrecision(7)))));
  schedule();
}

function showSample(i) {
  state.strokes = [];
  state.pen = null;
  if (data.labels) state.target = data.labels[i];
  showTarget();
  element("sample").value = String(i); // nothing is selected if i is a mistake
  setInput(samples.subarray(i * inputSize, (i + 1) * inputSize));
  drawPaper();
}

function fromDrawing() {
  const [height, width] = data.picture;
  element("sample").selectedIndex = -1;
  setInput(normalized(state.strokes, height, width).map((value) => value * data.ink));
  drawPaper();
}

function drawPaper() {
  const canvas = element("paper");
  const context = canvas.getContext("2d");
  const size = canvas.width;
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--zero");
  context.fillRect(0, 0, size, size);
  context.strokeStyle = context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  context.lineWidth = 18;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of state.strokes) {
    context.beginPath();
    stroke.forEach(([x, y], k) => (k ? context.lineTo(x * size, y * size) : context.moveTo(x * size, y * size)));
    if (stroke.length === 1) context.lineTo(stroke[0][0] * size + 0.1, stroke[0][1] * size);
    context.stroke();
  }
  if (state.pen) {
    context.lineWidth = 2;
    context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue(state.pen.down ? "--bad" : "--accent");
    context.strokeRect(state.pen.at[0] * size - 7, state.pen.at[1] * size - 7, 14, 14);
  }
}

function listenToPaper() {
  const canvas = element("paper");
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  let drawing = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
    drawing = event.pointerId;
    state.pen = null;
    state.strokes.push([at(event)]);
    fromDrawing();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== drawing) return;
    const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    (events.length ? events : [event]).forEach((one) => state.strokes[state.strokes.length - 1].push(at(one)));
    fromDrawing();
  });
  ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(name, () => (drawing = null)));
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (!state.pen) state.pen = { at: [0.5, 0.5], down: false };
    const { pen } = state;
    if (event.key in moves) {
      pen.at = pen.at.map((value, axis) => Math.min(1, Math.max(0, value + moves[event.key][axis] / 20)));
      if (pen.down) state.strokes[state.strokes.length - 1].push([...pen.at]);
    } else if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) state.strokes.push([[...pen.at]]);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      clear();
      return event.preventDefault();
    } else return undefined;
    event.preventDefault();
    if (pen.down) fromDrawing();
    else drawPaper();
    return undefined;
  });
}

function clear() {
  state.strokes = [];
  if (state.pen) state.pen.down = false;
  fromDrawing();
}

/* ---------------------------------------------------------------- prediction */

function answer(run) {
  const p = run.p;
  if (data.output === "sigmoid" && outputs === 1) return p[0] > 0.5 ? 1 : 0;
  return p.indexOf(Math.max(...p));
}

/* [name, number] for each bar */
function bars(run) {
  if (data.output === "sigmoid" && outputs === 1) return [[data.classes[0], 1 - run.p[0]], [data.classes[1], run.p[0]]];
  return Array.from(run.p, (value, i) => [isClass ? data.classes[i] : "output", value]);
}

function showPrediction(run) {
  const rows_ = bars(run);
  const probabilities = data.output !== "linear";
  const bound = probabilities ? 1 : Math.max(1, ...rows_.map(([, value]) => Math.abs(value)));
  const best = answer(run);
  element("bars").tBodies[0].replaceChildren(
    ...rows_.map(([name, value], i) => {
      const bar = node("div", { className: value < 0 ? "bar below" : "bar" });
      bar.style.width = `${(100 * Math.abs(value)) / bound}%`;
      const cells = [node("th", { scope: "row" }, name), node("td", {}, bar), node("td", { className: "value" }, probabilities ? percent(value) : text(value))];
      return node("tr", { className: isClass && i === best ? "best" : "" }, ...cells);
    }),
  );
  const verdict = element("verdict");
  if (!isClass) {
    verdict.textContent = `error ${text(run.p[0] - state.target)}`;
    return;
  }
  const right = best === state.target;
  verdict.className = right ? "correct" : "incorrect";
  verdict.textContent = right ? `correct: ${data.classes[best]}` : `incorrect: the network says ${data.classes[best]}`;
}

function showTarget() {
  if (isClass) element("target").value = String(state.target);
  else element("target-number").value = String(state.target);
}

function showLayers(run) {
  element("layers").replaceChildren(
    ...run.steps.map(({ layer, y }) =>
      node("li", {}, node("h3", {}, `${layerName(layer)}, ${describeShape(layer.output)}`), picture(y, layer.output, "y")),
    ),
  );
}

/* ---------------------------------------------------------------- backpropagation */

const FORMULAS = {
  dense: ["y = x W + b", "dW = xᵀ dy    db = dy    dx = dy Wᵀ"],
  conv: ["y = C W + b, with a row of C for each window of x", "dW = Cᵀ dy    db = Σ dy    dx = dy Wᵀ, added to the pixels of each window"],
  max_pool: ["y = the maximum of each window", "dx = dy at the first maximum of each window, else 0"],
  average_pool: ["y = the mean of each window", "dx = Σ dy / n over the windows that a pixel is in"],
  global_average: ["y = Σ x / n for each channel", "dx = dy / n"],
  global_max: ["y = the maximum of each channel", "dx = dy at the maximum, else 0"],
  scale: ["y = γ (x − μ) / σ + β, with the running μ and σ", "dx = γ/σ dy"],
  relu: ["y = max(x, 0)", "dx = dy where y > 0, else 0"],
  leaky_relu: ["y = x where x > 0, else αx", "dx = dy where x > 0, else α dy"],
  elu: ["y = x where x > 0, else α(eˣ − 1)", "dx = dy where x > 0, else α eˣ dy"],
  selu: ["y = λ ELU(x; α)", "dx = λ ELU'(x; α) dy"],
  gelu: ["y = x Φ(x)", "dx = (Φ(x) + x φ(x)) dy"],
  silu: ["y = x σ(x)", "dx = (1 + x σ(−x)) σ(x) dy"],
  softplus: ["y = log(1 + eˣ)", "dx = σ(x) dy"],
  sigmoid: ["y = σ(x) = 1 / (1 + e⁻ˣ)", "dx = y (1 − y) dy"],
  tanh: ["y = tanh x", "dx = (1 − y²) dy"],
  softmax: ["y = eˣ / Σ eˣ", "dx = y (dy − Σ y dy)"],
  log_softmax: ["y = x − log Σ eˣ", "dx = dy − eʸ Σ dy"],
  rescaling: ["y = scale · x + offset", "dx = scale · dy"],
  identity: ["y = x, perhaps in another shape", "dx = dy"],
};

const LOSS = {
  softmax: ["p = eᶻ / Σ eᶻ    loss = log Σ eᶻ − Σ t z = −log p of the correct class", "dz = p − t"],
  sigmoid: ["p = σ(z)    loss = log(1 + eᶻ) − t z, the mean over the outputs", "dz = (p − t) / outputs"],
  probabilities: ["loss = −Σ t log z", "dz = −t / z"],
  linear: ["loss = (z − t)², the mean over the outputs", "dz = 2 (z − t) / outputs"],
};

const n = network.layers.length;
const stages = [
  ...network.layers.map((layer, k) => [`forward: ${layerName(layer)}`, k]),
  ["the loss", n],
  ...network.layers.map((layer, k) => [`backward: ${layerName(layer)}`, 2 * n - k]).reverse(),
  ["the step", 2 * n + 1],
];

function showStage(run) {
  const place = element("stage");
  const [title, k] = stages[state.stage];
  const parts = [node("h3", {}, title)];
  const formula = (line) => parts.push(node("div", { className: "formula" }, line));
  const pictures = (...all) => parts.push(node("div", { className: "pictures" }, ...all));
  if (k < n) {
    const { layer, x, y } = run.steps[k];
    formula(FORMULAS[layer.kind][0]);
    pictures(picture(x, layer.input, "x"), picture(y, layer.output, "y"));
  } else if (k === n) {
    LOSS[data.output].forEach(formula);
    const t = network.targets(state.target);
    parts.push(node("p", {}, `loss = ${text(run.loss)}`));
    pictures(picture(run.z, [outputs], "z"), picture(run.p, [outputs], "p"), picture(t, [outputs], "t"), picture(run.dz, [outputs], "dz"));
  } else if (k <= 2 * n) {
    const { layer, dy, dx, grads } = run.steps[2 * n - k];
    formula(FORMULAS[layer.kind][1]);
    const weight = grads.weight ? [picture(grads.weight, weightShape(layer), "dW")] : [];
    pictures(picture(dy, layer.output, "dy"), ...weight, picture(dx, layer.input, "dx"));
    if (grads.weight && layer.frozen) parts.push(node("p", {}, "This layer is frozen, so the step does not change it."));
  } else {
    const rate = learningRate();
    formula(`W = W − ${text(rate)} dW    b = b − ${text(rate)} db`);
    parts.push(node("p", {}, effect(run, network.afterStep(run, state.input, rate))));
    parts.push(node("p", {}, "The step is one of plain gradient descent with this one sample. Batch normalization and frozen layers stay as they are."));
  }
  place.replaceChildren(...parts);
  element("previous").disabled = state.stage === 0;
  element("next").disabled = state.stage === stages.length - 1;
  element("step").value = String(state.stage);
}

function weightShape({ arrays: { weight }, kind, output, settings, input }) {
  const units = output[output.length - 1];
  return kind === "conv" ? [settings.kernel[0] * settings.kernel[1] * input[2], units] : [weight.length / units, units];
}

function effect(before, after) {
  if (!isClass) return `The output changes from ${text(before.p[0], 6)} to ${text(after.p[0], 6)}.`;
  const value = (run) => bars(run)[state.target][1];
  const show = data.output === "linear" ? (v) => text(v, 6) : (v) => `${(100 * v).toFixed(3)} %`;
  return `The output for ${data.classes[state.target]} changes from ${show(value(before))} to ${show(value(after))}.`;
}

function learningRate() {
  const rate = Number(element("rate").value);
  return Number.isFinite(rate) && rate >= 0 ? rate : data.rate;
}

/* ---------------------------------------------------------------- one weight */

/* The weights of the chosen unit: indices into the array, and how many cells are in a row */
function ofUnit() {
  const { layer, unit } = state;
  const units = layer.output[layer.output.length - 1];
  const count = layer.arrays.weight.length / units;
  const indices = Array.from({ length: count }, (_, i) => i * units + unit);
  if (layer.kind === "dense") return [indices, imageColumns(count)];
  const channels = layer.input[2];
  const [height, width] = layer.settings.kernel;
  const order = [];
  for (let i = 0; i < height; i++)
    for (let c = 0; c < channels; c++) for (let j = 0; j < width; j++) order.push(indices[(i * width + j) * channels + c]);
  return [order, width * channels];
}

function showWeights(run) {
  if (!trained.length) return;
  const { layer } = state;
  const step = run.steps.find((one) => one.layer === layer);
  const units = layer.output[layer.output.length - 1];
  state.unit = Math.min(Math.max(0, state.unit), units - 1);
  const [indices, columns] = ofUnit();
  state.entry = Math.min(state.entry, indices.length - 1);
  element("unit").max = String(units - 1);
  element("unit").value = String(state.unit);
  element("bias").disabled = !layer.arrays.bias;
  const cell = Math.max(2, Math.min(24, Math.floor(280 / columns)));
  const mark = state.bias ? null : state.entry;
  const values = indices.map((i) => layer.arrays.weight[i]);
  paint(element("weights"), values, columns, { mark, cell, label: `weights of unit ${state.unit}; the arrow keys choose one of ${values.length}` });
  paint(element("weight-gradients"), indices.map((i) => step.grads.weight[i]), columns, { mark, cell });
  showWeight(run, step, state.bias ? null : indices[state.entry]);
}

function showWeight(run, step, index) {
  const { layer, unit } = state;
  const rate = learningRate();
  const name = index === null ? "bias" : "weight";
  const at = index === null ? unit : index;
  const [w, d] = [layer.arrays[name][at], step.grads[name][at]];
  const [symbol, where] = index === null ? [`b[${unit}]`, `the bias of unit ${unit}`] : naming(layer, index);
  const lines = [
    `${symbol} = ${text(w, 6)}`,
    `d${symbol} = ${terms(step, index)} = ${text(d, 6)}`,
    `${symbol} − ${text(rate)} · d${symbol} = ${text(w - rate * d, 6)}`,
  ];
  const one = network.afterStep(run, state.input, rate, { layer, name, index: at });
  const all = network.afterStep(run, state.input, rate);
  element("weight").replaceChildren(
    node("h3", {}, `${layerName(layer)}: ${where}`),
    node("div", { className: "formula" }, lines.join("\n")),
    node("p", {}, `If only this number takes the step: ${effect(run, one)}`),
    node("p", {}, `If all weights and biases take it: ${effect(run, all)}`),
  );
}

function naming(layer, index) {
  const units = layer.output[layer.output.length - 1];
  const [input, unit] = [Math.floor(index / units), index % units];
  if (layer.kind === "conv") {
    const channels = layer.input[2];
    const [c, tap] = [input % channels, Math.floor(input / channels)];
    const [k, l] = [Math.floor(tap / layer.settings.kernel[1]), tap % layer.settings.kernel[1]];
    return [`W[${k}, ${l}, ${c}, ${unit}]`, `row ${k}, column ${l} and channel ${c} of filter ${unit}`];
  }
  const columns = data.picture && layer.arrays.weight.length / units === data.picture[0] * data.picture[1] ? data.picture[1] : 0;
  const from = columns ? `the pixel in row ${Math.floor(input / columns)}, column ${input % columns}` : `input ${input}`;
  return [`W[${input}, ${unit}]`, `from ${from} to unit ${unit}`];
}

/* The products whose sum is the gradient: one for a dense layer, one for each place of a filter */
function terms({ layer, x, dy }, index) {
  const units = layer.output[layer.output.length - 1];
  const unit = index === null ? state.unit : index % units;
  let found = [];
  if (layer.kind === "dense") {
    const count = layer.arrays.weight.length / units;
    for (let r = 0; r * units < dy.length; r++) found.push([index === null ? 1 : x[r * count + Math.floor(index / units)], dy[r * units + unit]]);
  } else {
    const channels = layer.input[2];
    const row = index === null ? null : Math.floor(index / units);
    if (row === null) for (let i = unit; i < dy.length; i += units) found.push([1, dy[i]]);
    else
      taps(layer).forEach(([place, pixel, tap]) => {
        if (tap === Math.floor(row / channels)) found.push([x[pixel * channels + (row % channels)], dy[place * units + unit]]);
      });
  }
  const show = ([a, b]) => (index === null ? text(b) : `${text(a)} · ${text(b)}`);
  const head = index === null ? "dy" : "x · dy";
  if (found.length === 1) return `${head} = ${show(found[0])}`;
  const total = found.length;
  found = found.filter(([a, b]) => a * b).sort((s, t) => Math.abs(t[0] * t[1]) - Math.abs(s[0] * s[1]));
  const rest = found.length > 3 ? ` + ${found.length - 3} smaller ones` : "";
  return `Σ ${head} over ${total} places = ${found.slice(0, 3).map((pair) => `(${show(pair)})`).join(" + ") || "0"}${rest}`;
}

function listenToWeights() {
  const canvas = element("weights");
  const choose = (entry) => {
    state.entry = Math.min(Math.max(0, entry), ofUnit()[0].length - 1);
    state.bias = false;
    schedule();
  };
  canvas.addEventListener("click", (event) => {
    const [indices, columns] = ofUnit();
    const box = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * Math.ceil(indices.length / columns));
    choose(Math.min(columns - 1, column) + row * columns);
  });
  canvas.addEventListener("keydown", (event) => {
    const columns = ofUnit()[1];
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = state.entry + by;
    if (next >= 0 && next < ofUnit()[0].length) choose(next);
  });
  element("weight-layer").append(...trained.map((layer, i) => option(i, layerName(layer))));
  element("weight-layer").addEventListener("change", (event) => {
    state.layer = trained[Number(event.target.value)];
    chooseLargest();
    schedule();
  });
  element("unit").addEventListener("change", (event) => {
    state.unit = Math.floor(Number(event.target.value)) || 0;
    schedule();
  });
  element("bias").addEventListener("click", () => {
    state.bias = true;
    schedule();
  });
  element("rate").value = String(data.rate);
  element("rate").addEventListener("input", schedule);
}

/* Choose the weight with the largest gradient, because most pixels of an image are 0. */
function chooseLargest() {
  const { output } = state.layer;
  const grads = state.run.steps.find((step) => step.layer === state.layer).grads.weight;
  const units = output[output.length - 1];
  const largest = grads.reduce((best, value, i) => (Math.abs(value) > Math.abs(grads[best]) ? i : best), 0);
  state.unit = largest % units;
  state.entry = ofUnit()[0].indexOf(largest);
  state.bias = false;
}

/* ---------------------------------------------------------------- mistakes */

function showMistakes() {
  const wrong = sampleCount - (data.examples || 0);
  element("mistakes-section").hidden = !data.tested;
  if (!data.tested) return;
  const shown = wrong < data.mistakes ? ` The ${wrong} most confident ones are here.` : "";
  element("mistakes-text").textContent = `${data.mistakes} of ${data.tested} samples are classified incorrectly.${shown}`;
  for (let i = data.examples; i < sampleCount; i++) {
    const values = samples.subarray(i * inputSize, (i + 1) * inputSize);
    const says = `${data.classes[answer(network.forward(values))]} instead of ${data.classes[data.labels[i]]}`;
    const canvas = node("canvas", { "aria-hidden": "true" });
    const button = node("button", { type: "button" }, ...(data.picture ? [canvas] : []), says);
    if (data.picture) {
      paint(canvas, Array.from(values), data.picture[1], { cell: 2 });
      canvas.removeAttribute("aria-label");
    }
    button.addEventListener("click", () => {
      showSample(i);
      element("input-title").scrollIntoView({ block: "start" });
    });
    element("mistakes").append(button);
  }
}

/* ---------------------------------------------------------------- the page */

let waiting = false;

function schedule() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    show();
  });
}

function show() {
  const run = network.gradients(state.input, state.target);
  state.run = run;
  if (data.picture) paint(element("seen"), Array.from(state.input), data.picture[1], { cell: 5, largest: data.ink, label: "the image that the network sees" });
  showPrediction(run);
  showLayers(run);
  showStage(run);
  showWeights(run);
}

function bytes(count) {
  return count < 1024 ? `${count} bytes` : count < 2 ** 20 ? `${(count / 1024).toFixed(1)} KiB` : `${(count / 2 ** 20).toFixed(1)} MiB`;
}

function start() {
  element("size").textContent =
    `The network is in this file: ${data.parameters.toLocaleString("en")} numbers in ${data.precision}, ${bytes(data.weightBytes)}. ` +
    `The file has ${bytes(new Blob([document.documentElement.outerHTML]).size)}. It needs no server and no network.`;
  element("drawing").hidden = !data.picture;
  if (data.picture) listenToPaper();
  else {
    for (let i = 0; i < data.features; i++) {
      const box = node("input", { type: "number", step: "any", value: "0" });
      box.addEventListener("input", () => {
        element("sample").selectedIndex = -1;
        state.input[i] = Number(box.value) || 0;
        schedule();
      });
      element("features").append(node("p", {}, node("label", {}, `Feature ${i}: `, box)));
    }
  }
  element("clear").addEventListener("click", clear);
  element("undo").addEventListener("click", () => {
    state.strokes.pop();
    fromDrawing();
  });
  element("examples").hidden = !sampleCount;
  element("sample").append(
    ...Array.from({ length: data.examples || 0 }, (_, i) => option(i, `${i}${data.labels ? `: ${isClass ? data.classes[data.labels[i]] : text(data.labels[i])}` : ""}`)),
  );
  element("sample").addEventListener("change", (event) => showSample(Number(event.target.value)));
  element("target").hidden = !isClass;
  element("target-number").hidden = isClass;
  element("target-name").textContent = isClass ? "Correct class" : "Target";
  element("target").append(...(isClass ? data.classes.map((name, i) => option(i, name)) : []));
  element("target").addEventListener("change", (event) => {
    state.target = Number(event.target.value);
    schedule();
  });
  element("target-number").addEventListener("input", (event) => {
    state.target = Number(event.target.value) || 0;
    schedule();
  });
  element("step").append(...stages.map(([title], i) => option(i, `${i + 1}. ${title}`)));
  const go = (stage) => {
    state.stage = Math.min(Math.max(0, stage), stages.length - 1);
    showStage(state.run);
  };
  element("previous").addEventListener("click", () => go(state.stage - 1));
  element("next").addEventListener("click", () => go(state.stage + 1));
  element("step").addEventListener("change", (event) => go(Number(event.target.value)));
  if (trained.length) listenToWeights();
  else element("weights-title").parentElement.hidden = true;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (data.picture) drawPaper();
    schedule();
  });
  showTarget();
  showMistakes();
  if (sampleCount) showSample(0);
  else if (data.picture) drawPaper();
  show();
  if (trained.length) {
    chooseLargest();
    showWeights(state.run);
  }
}

start();

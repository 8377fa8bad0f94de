"use strict";

/* The mathematics of the page, for one sample. Arrays are Float64Arrays; images are (height, width, channels), row by row.
 * A layer is a function x -> {y, backward}, and backward is dy -> {dx, grads}, with the names of docs/backprop.md. */

const sum = (values) => values.reduce((a, b) => a + b, 0);
const product = (shape) => shape.reduce((a, b) => a * b, 1);

function decode(array) {
  const text = atob(array.data);
  const view = new DataView(new ArrayBuffer(text.length));
  for (let i = 0; i < text.length; i++) view.setUint8(i, text.charCodeAt(i));
  const bytes = { uint8: 1, float16: 2, float32: 4 }[array.dtype];
  const read = {
    uint8: (i) => view.getUint8(i),
    float16: (i) => half(view.getUint16(2 * i, true)),
    float32: (i) => view.getFloat32(4 * i, true),
  }[array.dtype];
  return Float64Array.from({ length: text.length / bytes }, (_, i) => read(i));
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

function sigmoid(x) {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}

function softplus(x) {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

function erf(x) {
  const size = Math.abs(x);
  if (size < 3) {
    let term = x;
    let total = x;
    for (let n = 1; Math.abs(term) > 1e-17; n++) {
      term *= (-x * x) / n;
      total += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * total;
  }
  let tail = size; // the continued fraction of erfc
  for (let n = 60; n > 0; n--) tail = size + n / 2 / tail;
  return Math.sign(x) * (1 - Math.exp(-x * x) / Math.sqrt(Math.PI) / tail);
}

const normal = (x) => (1 + erf(x / Math.SQRT2)) / 2;
const density = (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
const tanhPart = (x) => Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
const SELU = { scale: 1.0507009873554805, alpha: 1.6732632423543772 };

/* y = f(x) and dy/dx = slope(x, y) of each element */
const FUNCTIONS = {
  relu: () => [(x) => Math.max(x, 0), (x) => (x > 0 ? 1 : 0)],
  leaky_relu: ({ negative_slope: a }) => [(x) => (x > 0 ? x : a * x), (x) => (x > 0 ? 1 : a)],
  elu: ({ alpha: a }) => [(x) => (x > 0 ? x : a * Math.expm1(x)), (x) => (x > 0 ? 1 : a * Math.exp(x))],
  selu: () => [
    (x) => SELU.scale * (x > 0 ? x : SELU.alpha * Math.expm1(x)),
    (x) => SELU.scale * (x > 0 ? 1 : SELU.alpha * Math.exp(x)),
  ],
  gelu: ({ approximate }) =>
    approximate === "tanh"
      ? [
          (x) => x * sigmoid(2 * tanhPart(x)),
          (x) => {
            const s = sigmoid(2 * tanhPart(x));
            return s + 2 * x * s * (1 - s) * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x * x);
          },
        ]
      : [(x) => x * normal(x), (x) => normal(x) + x * density(x)],
  silu: () => [(x) => x * sigmoid(x), (x) => sigmoid(x) * (1 + x * sigmoid(-x))],
  softplus: () => [softplus, sigmoid],
  sigmoid: () => [sigmoid, (x) => sigmoid(x) * sigmoid(-x)],
  tanh: () => [Math.tanh, (x) => 1 - Math.tanh(x) ** 2],
  rescaling: ({ scale, offset }) => [(x) => scale * x + offset, () => scale],
  identity: () => [(x) => x, () => 1],
};

const MAKERS = {
  dense: ({ arrays: { weight: W, bias: b }, output }) => (x) => {
    const units = output[output.length - 1];
    const inputs = W.length / units;
    const rows = x.length / inputs;
    const y = new Float64Array(rows * units);
    for (let r = 0; r < rows; r++) {
      for (let i = 0; i < inputs; i++) {
        const value = x[r * inputs + i];
        if (value) for (let j = 0; j < units; j++) y[r * units + j] += value * W[i * units + j];
      }
      if (b) for (let j = 0; j < units; j++) y[r * units + j] += b[j];
    }
    const backward = (dy) => {
      const dx = new Float64Array(x.length);
      const grads = { weight: new Float64Array(W.length), ...(b && { bias: new Float64Array(units) }) };
      for (let r = 0; r < rows; r++) {
        for (let i = 0; i < inputs; i++) {
          let total = 0;
          for (let j = 0; j < units; j++) {
            const d = dy[r * units + j];
            total += d * W[i * units + j];
            grads.weight[i * units + j] += x[r * inputs + i] * d;
          }
          dx[r * inputs + i] = total;
        }
        if (b) for (let j = 0; j < units; j++) grads.bias[j] += dy[r * units + j];
      }
      return { dx, grads };
    };
    return { y, backward };
  },

  conv: (layer) => {
    const { arrays, output, input } = layer;
    const [filters, channels] = [output[2], input[2]];
    const pairs = taps(layer);
    return (x) => {
      const { weight: W, bias: b } = arrays;
      const y = new Float64Array(product(output));
      if (b) for (let i = 0; i < y.length; i++) y[i] = b[i % filters];
      pairs.forEach(([place, pixel, tap]) => {
        for (let c = 0; c < channels; c++) {
          const value = x[pixel * channels + c];
          const row = (tap * channels + c) * filters;
          if (value) for (let f = 0; f < filters; f++) y[place * filters + f] += value * W[row + f];
        }
      });
      const backward = (dy) => {
        const dx = new Float64Array(x.length);
        const grads = { weight: new Float64Array(W.length), ...(b && { bias: new Float64Array(filters) }) };
        pairs.forEach(([place, pixel, tap]) => {
          for (let c = 0; c < channels; c++) {
            const row = (tap * channels + c) * filters;
            let total = 0;
            for (let f = 0; f < filters; f++) {
              const d = dy[place * filters + f];
              total += d * W[row + f];
              grads.weight[row + f] += x[pixel * channels + c] * d;
            }
            dx[pixel * channels + c] += total;
          }
        });
        if (b) for (let i = 0; i < dy.length; i++) grads.bias[i % filters] += dy[i];
        return { dx, grads };
      };
      return { y, backward };
    };
  },

  max_pool: (layer) => {
    const channels = layer.input[2];
    const pairs = taps(layer);
    return (x) => {
      const y = new Float64Array(product(layer.output)).fill(-Infinity);
      const from = new Int32Array(y.length);
      pairs.forEach(([place, pixel]) => {
        for (let c = 0; c < channels; c++) {
          if (x[pixel * channels + c] > y[place * channels + c]) {
            y[place * channels + c] = x[pixel * channels + c];
            from[place * channels + c] = pixel * channels + c;
          }
        }
      });
      const backward = (dy) => {
        const dx = new Float64Array(x.length);
        dy.forEach((d, i) => (dx[from[i]] += d));
        return { dx, grads: {} };
      };
      return { y, backward };
    };
  },

  average_pool: (layer) => {
    const channels = layer.input[2];
    const pairs = taps(layer);
    const counts = new Float64Array(product(layer.output) / channels);
    pairs.forEach(([place]) => counts[place]++);
    return (x) => {
      const y = new Float64Array(product(layer.output));
      const move = (to, from, toIndex, fromIndex, n) => {
        for (let c = 0; c < channels; c++) to[toIndex * channels + c] += from[fromIndex * channels + c] / n;
      };
      pairs.forEach(([place, pixel]) => move(y, x, place, pixel, counts[place]));
      const backward = (dy) => {
        const dx = new Float64Array(x.length);
        pairs.forEach(([place, pixel]) => move(dx, dy, pixel, place, counts[place]));
        return { dx, grads: {} };
      };
      return { y, backward };
    };
  },

  global_average: ({ input }) => (x) => {
    const [channels, places] = [input[2], input[0] * input[1]];
    const y = new Float64Array(channels);
    x.forEach((value, i) => (y[i % channels] += value / places));
    return { y, backward: (dy) => ({ dx: x.map((_, i) => dy[i % channels] / places), grads: {} }) };
  },

  global_max: ({ input }) => (x) => {
    const channels = input[2];
    const y = new Float64Array(channels).fill(-Infinity);
    const from = new Int32Array(channels);
    x.forEach((value, i) => {
      if (value > y[i % channels]) [y[i % channels], from[i % channels]] = [value, i];
    });
    const backward = (dy) => {
      const dx = new Float64Array(x.length);
      dy.forEach((d, c) => (dx[from[c]] = d));
      return { dx, grads: {} };
    };
    return { y, backward };
  },

  scale: ({ arrays: { scale, shift } }) => (x) => {
    const n = scale.length;
    const y = x.map((value, i) => value * scale[i % n] + shift[i % n]);
    return { y, backward: (dy) => ({ dx: dy.map((d, i) => d * scale[i % n]), grads: {} }) };
  },

  softmax: ({ output }) => (x) => {
    const n = output[output.length - 1];
    const y = rows(x, n, softmax);
    const backward = (dy) => ({
      dx: rows(dy, n, (d, r) => {
        const p = y.subarray(r * n, r * n + n);
        const mean = sum(d.map((value, i) => value * p[i]));
        return d.map((value, i) => p[i] * (value - mean));
      }),
      grads: {},
    });
    return { y, backward };
  },

  log_softmax: ({ output }) => (x) => {
    const n = output[output.length - 1];
    const y = rows(x, n, (row) => row.map((value) => value - logSumExp(row)));
    const backward = (dy) => ({
      dx: rows(dy, n, (d, r) => d.map((value, i) => value - Math.exp(y[r * n + i]) * sum(d))),
      grads: {},
    });
    return { y, backward };
  },
};

function elementwise(layer) {
  const [value, slope] = FUNCTIONS[layer.kind](layer.settings);
  return (x) => ({ y: x.map((v) => value(v)), backward: (dy) => ({ dx: dy.map((d, i) => d * slope(x[i])), grads: {} }) });
}

/* [place of the window, pixel, tap] for every pixel in every window */
function taps({ input: [height, width], output: [rows_, columns], settings: { kernel, strides, dilation, before } }) {
  const found = [];
  for (let i = 0; i < rows_; i++)
    for (let j = 0; j < columns; j++)
      for (let k = 0; k < kernel[0]; k++)
        for (let l = 0; l < kernel[1]; l++) {
          const row = i * strides[0] + k * dilation[0] - before[0];
          const column = j * strides[1] + l * dilation[1] - before[1];
          if (row >= 0 && row < height && column >= 0 && column < width)
            found.push([i * columns + j, row * width + column, k * kernel[1] + l]);
        }
  return found;
}

function rows(x, n, change) {
  const y = new Float64Array(x.length);
  for (let r = 0; r * n < x.length; r++) y.set(change(x.subarray(r * n, r * n + n), r), r * n);
  return y;
}

function logSumExp(z) {
  const largest = Math.max(...z);
  return largest + Math.log(sum(z.map((value) => Math.exp(value - largest))));
}

function softmax(z) {
  const total = logSumExp(z);
  return z.map((value) => Math.exp(value - total));
}

class Network {
  constructor(data) {
    this.layers = data.layers.map((layer) => {
      const arrays = Object.fromEntries(Object.entries(layer.arrays).map(([name, array]) => [name, decode(array)]));
      const decoded = { ...layer, arrays, trains: ["dense", "conv"].includes(layer.kind) && !layer.frozen };
      return { ...decoded, run: (MAKERS[layer.kind] || elementwise)(decoded) };
    });
    this.output = data.output;
  }

  /* Every layer's input, output and backward pass, the network's output z and the prediction p */
  forward(input) {
    const steps = [];
    let x = Float64Array.from(input);
    for (const layer of this.layers) {
      const { y, backward } = layer.run(x);
      steps.push({ layer, x, y, backward });
      x = y;
    }
    const p = this.output === "softmax" ? softmax(x) : this.output === "sigmoid" ? x.map(sigmoid) : x;
    return { steps, z: x, p };
  }

  /* The targets of all outputs: 1 for the label, or the number itself if there is one output */
  targets(target) {
    const outputs = product(this.layers[this.layers.length - 1].output);
    return outputs === 1 ? [target] : Array.from({ length: outputs }, (_, i) => (i === target ? 1 : 0));
  }

  loss({ z, p }, target) {
    const t = this.targets(target);
    if (this.output === "softmax") return { loss: logSumExp(z) - z[target], dz: p.map((value, i) => value - t[i]) };
    if (this.output === "probabilities") {
      const clipped = Math.max(z[target], 1e-7);
      return { loss: -Math.log(clipped), dz: z.map((_, i) => -t[i] / clipped || 0) };
    }
    const n = z.length;
    if (this.output === "sigmoid")
      return { loss: sum(z.map((v, i) => softplus(v) - t[i] * v)) / n, dz: p.map((value, i) => (value - t[i]) / n) };
    return { loss: sum(z.map((v, i) => (v - t[i]) ** 2)) / n, dz: z.map((v, i) => (2 * (v - t[i])) / n) };
  }

  /* The forward pass, the loss, and for each layer dy, dx and the gradients of its arrays */
  gradients(input, target) {
    const run = this.forward(input);
    const { loss, dz } = this.loss(run, target);
    let dy = dz;
    for (const step of [...run.steps].reverse()) {
      Object.assign(step, { dy }, step.backward(dy));
      dy = step.dx;
    }
    return { ...run, loss, dz, dx: dy };
  }

  /* The prediction after one SGD step, of one number ({layer, name, index}) or of all; the network stays as it is */
  afterStep(run, input, rate, only = null) {
    const changed = run.steps.filter(({ layer }) => layer.trains && (!only || layer === only.layer));
    const old = changed.map(({ layer }) => Object.entries(layer.arrays).map(([name, array]) => [name, array.slice()]));
    for (const { layer, grads } of changed) {
      for (const [name, array] of Object.entries(layer.arrays)) {
        if (only && name === only.name) array[only.index] -= rate * grads[name][only.index];
        if (!only) array.forEach((_, i) => (array[i] -= rate * grads[name][i]));
      }
    }
    const after = this.forward(input);
    changed.forEach(({ layer }, k) => old[k].forEach(([name, array]) => layer.arrays[name].set(array)));
    return after;
  }
}

/* A drawing as an image like those of MNIST: in a box of 20 of 28 pixels, with its center of mass in the middle.
 * strokes: lists of points [x, y] in units of the drawing area. Returns numbers from 0 to 1. */
function normalized(strokes, height, width) {
  const points = strokes.flat();
  if (!points.length) return new Float64Array(height * width);
  const side = Math.min(height, width);
  const box = side >= 20 ? (side * 20) / 28 : side;
  const radius = Math.max(0.6, (side * 1.15) / 28);
  const ends = [0, 1].map((axis) => [Math.min(...points.map((p) => p[axis])), Math.max(...points.map((p) => p[axis]))]);
  const extent = Math.max(...ends.map(([low, high]) => high - low), 0.15); // a dot stays a dot
  const scale = Math.max(box - 2 * radius, 1) / extent;
  const middle = [width / 2, height / 2];
  const place = (shift) =>
    strokes.map((stroke) =>
      stroke.map((p) => [0, 1].map((axis) => (p[axis] - (ends[axis][0] + ends[axis][1]) / 2) * scale + middle[axis] + shift[axis])),
    );
  const image = ink(place([0, 0]), height, width, radius);
  if (side < 20) return image;
  const total = sum(image);
  const mass = [0, 0];
  image.forEach((value, i) => {
    mass[0] += (value * ((i % width) + 0.5)) / total;
    mass[1] += (value * (Math.floor(i / width) + 0.5)) / total;
  });
  // MNIST's centers of mass are in the middle of pixel (14, 14), as measured
  return ink(place([middle[0] + 0.5 - mass[0], middle[1] + 0.5 - mass[1]]), height, width, radius);
}

function ink(strokes, height, width, radius) {
  const image = new Float64Array(height * width);
  for (const stroke of strokes) {
    for (let k = 0; k < stroke.length; k++) {
      const [a, b] = [stroke[Math.max(k - 1, 0)], stroke[k]];
      const reach = radius + 1;
      for (let row = Math.max(0, Math.floor(Math.min(a[1], b[1]) - reach)); row < Math.min(height, Math.max(a[1], b[1]) + reach); row++)
        for (let column = Math.max(0, Math.floor(Math.min(a[0], b[0]) - reach)); column < Math.min(width, Math.max(a[0], b[0]) + reach); column++) {
          const value = Math.min(1, Math.max(0, radius + 0.5 - distance([column + 0.5, row + 0.5], a, b)));
          image[row * width + column] = Math.max(image[row * width + column], value);
        }
    }
  }
  return image;
}

function distance(p, a, b) {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const squared = dx * dx + dy * dy;
  const along = squared ? Math.min(1, Math.max(0, ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / squared)) : 0;
  return Math.hypot(p[0] - a[0] - along * dx, p[1] - a[1] - along * dy);
}

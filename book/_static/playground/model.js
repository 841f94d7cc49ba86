// `pocket` in plain JavaScript: how its photos are seen, how its words are cut, and what its
// layers compute. No library. Every array is a Float32Array that holds its rows one after the
// other, and `rows` says how many; sums run in JavaScript's own float64 and are stored in float32.
//
// Scripts share one name, `playground`, because a page that was opened from the disk may load
// scripts, but neither modules nor anything by `fetch`.
globalThis.playground = globalThis.playground || {};

(() => {
  "use strict";

  // --- the product of two matrices, four lanes at a time -------------------------------------------

  // Nearly all of the time goes into y = W x. Where the browser has WebAssembly with lanes of four
  // floats, that loop is assembled here, instruction by instruction, and runs about five times as
  // fast; weights then lie in its memory. Where it has not, `fourRows` and `oneRow` do the same.
  const PAGE = 65536, MEMORY = 800, SCRATCH = 40; // pages of 64 kB: in all, and for x and y
  function assemble() {
    const leb = value => { // a number that is not negative, seven bits a byte
      const bytes = [];
      for (; value > 127; value = Math.floor(value / 128)) bytes.push((value & 127) | 128);
      return [...bytes, value];
    };
    const vector = parts => [...leb(parts.length), ...parts.flat()];
    const section = (id, content) => [id, ...leb(content.length), ...content];
    const text = word => vector([...word].map(letter => letter.charCodeAt(0)));
    const I32 = 0x7f, V128 = 0x7b, get = i => [0x20, i], set = i => [0x21, i], add = [0x6a];
    const constant = value => [0x41, ...leb(value)];
    const load = [0xfd, 0x00, 4, 0], mul = [0xfd, 0xe6, 1], plus = [0xfd, 0xe4, 1];
    const lane = i => [0xfd, 0x1f, i], store = offset => [0x38, 2, offset], floatAdd = [0x92];
    const loop = body => [0x03, 0x40, ...body, 0x0b];
    const more = (i, step) => [...get(i), ...constant(step), 0x6b, 0x22, i, 0x0d, 0]; // --i, again
    // given: addresses of x (whole blocks of four rows), of W and of y, bytes of a row, how many
    // blocks, how many pairs of outputs; then what is counted: four rows of x, the second of W,
    // blocks left, bytes into a row; then eight sums, and what was fetched
    const [X, W, Y, ROW, BLOCKS, PAIRS, FROM, NEXT, LEFT, AT, SUM, A, B, V] =
      [0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 21, 22, 23];
    const below = (from, to) => [...get(from), ...get(ROW), ...add, ...set(to)];
    const fetch = start => [...get(start), ...get(AT), ...add, ...load];
    const accumulate = (sum, weight) =>
      [...get(sum), ...get(weight), ...get(V), ...mul, ...plus, ...set(sum)];
    const four = [0, 1, 2, 3], eight = [0, 1, 2, 3, 4, 5, 6, 7];
    const inner = loop([
      ...fetch(W), ...set(A), ...fetch(NEXT), ...set(B),
      ...four.flatMap(r => [...fetch(FROM + r), ...set(V),
        ...accumulate(SUM + r, A), ...accumulate(SUM + 4 + r, B)]),
      ...get(AT), ...constant(16), ...add, 0x22, AT, ...get(ROW), 0x49, 0x0d, 0, // while at < row
    ]);
    const block = loop([
      ...constant(0), ...set(AT), ...[0, 1, 2].flatMap(r => below(FROM + r, FROM + r + 1)),
      ...eight.flatMap(r => [0xfd, 0x0c, ...Array(16).fill(0), ...set(SUM + r)]),
      ...inner,
      ...eight.flatMap(r => [...get(Y), ...four.flatMap(i => [...get(SUM + r), ...lane(i)]),
        ...floatAdd, ...floatAdd, ...floatAdd, ...store(4 * r)]),
      ...get(Y), ...constant(32), ...add, ...set(Y), ...below(FROM + 3, FROM), ...more(LEFT, 1),
    ]);
    const body = [
      ...vector([[...leb(7), I32], [...leb(11), V128]]),
      ...loop([...get(X), ...set(FROM), ...below(W, NEXT), ...get(BLOCKS), ...set(LEFT), ...block,
        ...below(NEXT, W), ...more(PAIRS, 1)]),
      0x0b,
    ];
    return Uint8Array.from([
      0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
      ...section(1, vector([[0x60, ...vector(Array(6).fill([I32])), ...vector([])]])),
      ...section(2, vector([[...text("js"), ...text("memory"), 2, 0, ...leb(MEMORY)]])),
      ...section(3, vector([[0]])),
      ...section(7, vector([[...text("linear"), 0, 0]])),
      ...section(10, vector([[...leb(body.length), ...body]])),
    ]);
  }

  let lanes = null; // once it runs: memory as floats, and the loop
  try {
    const memory = new WebAssembly.Memory({ initial: MEMORY, maximum: MEMORY });
    const made = new WebAssembly.Instance(new WebAssembly.Module(assemble()), { js: { memory } });
    lanes = { floats: new Float32Array(memory.buffer), linear: made.exports.linear,
      used: SCRATCH * PAGE / 4 };
  } catch (error) {
    playground.slow = error.message; // an old browser: the plain loops do it
  }

  // Room for weights: in the memory of the loop while it lasts, with one row to spare behind them.
  function room(count) {
    const end = lanes ? lanes.used + count + 1024 : Infinity;
    if (end > (lanes ? lanes.floats.length : 0)) return new Float32Array(count);
    const found = lanes.floats.subarray(lanes.used, lanes.used + count);
    lanes.used = Math.ceil(end / 4) * 4;
    return found;
  }

  // x goes to the start of the memory, y comes behind it: four rows of an output beside each other.
  function linearInLanes(x, weight, bias, rows) {
    const width = x.length / rows, outputs = weight.length / width;
    const blocks = Math.ceil(rows / 4), pairs = Math.ceil(outputs / 2), from = 4 * blocks * width;
    const y = new Float32Array(rows * outputs);
    lanes.floats.set(x);
    lanes.linear(0, weight.byteOffset, 4 * from, 4 * width, blocks, pairs);
    for (let o = 0; o < outputs; o++) {
      const start = from + 8 * blocks * (o >> 1) + 4 * (o & 1), own = bias ? bias[o] : 0;
      for (let t = 0; t < rows; t++)
        y[t * outputs + o] = lanes.floats[start + 8 * (t >> 2) + (t & 3)] + own;
    }
    return y;
  }

  // --- weights ---------------------------------------------------------------------------------

  function bytesOf(base64) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  const floatsOf = base64 => new Float32Array(bytesOf(base64).buffer);

  // bfloat16 is the upper half of a float32, so nothing is lost here. The file has all upper bytes
  // first and then all lower ones: sign and exponent repeat themselves, and so can be deflated.
  async function tensorsOf(packed) {
    const stream = new Blob([bytesOf(packed.data)]).stream();
    const inflated = stream.pipeThrough(new DecompressionStream("deflate"));
    const bytes = new Uint8Array(await new Response(inflated).arrayBuffer());
    const count = bytes.length / 2, floats = room(count), tensors = {};
    const words = new Uint32Array(floats.buffer, floats.byteOffset, count);
    for (let i = 0; i < count; i++) words[i] = (bytes[i] << 24) | (bytes[count + i] << 16);
    let at = 0;
    for (const [name, size] of packed.tensors) tensors[name] = floats.subarray(at, at += size);
    return tensors;
  }

  // --- the four things that layers are made of ---------------------------------------------------

  // y = W x + b for every row. Four rows and two outputs at a time: eight sums stay in registers,
  // and a weight is fetched once for four rows. That is three times as fast as the plain loop.
  function linear(x, weight, bias, rows) {
    const width = x.length / rows, outputs = weight.length / width;
    const needed = 4 * Math.ceil(rows / 4) * (width + outputs + 1);
    if (lanes && weight.buffer === lanes.floats.buffer && width % 4 === 0
      && needed <= SCRATCH * PAGE / 4) return linearInLanes(x, weight, bias, rows);
    const y = new Float32Array(rows * outputs);
    let t = 0;
    if (outputs % 2 === 0)
      for (; t + 4 <= rows; t += 4) fourRows(x, weight, bias, y, t, width, outputs);
    for (; t < rows; t++) oneRow(x, weight, bias, y, t, width, outputs);
    return y;
  }

  function fourRows(x, weight, bias, y, t, width, outputs) {
    const x0 = t * width, x1 = x0 + width, x2 = x1 + width, x3 = x2 + width;
    const y0 = t * outputs, y1 = y0 + outputs, y2 = y1 + outputs, y3 = y2 + outputs;
    for (let o = 0; o < outputs; o += 2) {
      const v = o * width, w = v + width;
      let a0 = bias ? bias[o] : 0, b0 = bias ? bias[o + 1] : 0;
      let a1 = a0, a2 = a0, a3 = a0, b1 = b0, b2 = b0, b3 = b0;
      for (let i = 0; i < width; i++) {
        const a = weight[v + i], b = weight[w + i];
        const r0 = x[x0 + i], r1 = x[x1 + i], r2 = x[x2 + i], r3 = x[x3 + i];
        a0 += a * r0; a1 += a * r1; a2 += a * r2; a3 += a * r3;
        b0 += b * r0; b1 += b * r1; b2 += b * r2; b3 += b * r3;
      }
      y[y0 + o] = a0; y[y1 + o] = a1; y[y2 + o] = a2; y[y3 + o] = a3;
      y[y0 + o + 1] = b0; y[y1 + o + 1] = b1; y[y2 + o + 1] = b2; y[y3 + o + 1] = b3;
    }
  }

  function oneRow(x, weight, bias, y, t, width, outputs) {
    const from = t * width, to = t * outputs;
    for (let o = 0; o < outputs; o++) {
      const w = o * width;
      let even = bias ? bias[o] : 0, odd = 0; // two sums that need not wait for each other
      for (let i = 0; i < width; i += 2) {
        even += weight[w + i] * x[from + i];
        odd += weight[w + i + 1] * x[from + i + 1];
      }
      y[to + o] = even + odd;
    }
  }

  // softmax(q k^T / sqrt(d)) v. Query t sees the first `sees(t)` keys; several heads of queries may
  // share one of keys (grouped attention).
  function attention(q, k, v, rows, heads, shared, sees) {
    const width = q.length / rows, d = width / heads, stride = d * shared;
    const y = new Float32Array(q.length), weights = new Float64Array(sees(rows - 1));
    for (let head = 0; head < heads; head++) {
      const own = Math.floor(head * shared / heads) * d;
      for (let t = 0; t < rows; t++) {
        const from = t * width + head * d, keys = sees(t);
        let most = -Infinity, total = 0;
        for (let s = 0; s < keys; s++) {
          let dot = 0;
          for (let i = 0; i < d; i++) dot += q[from + i] * k[s * stride + own + i];
          weights[s] = dot / Math.sqrt(d);
          most = Math.max(most, weights[s]);
        }
        for (let s = 0; s < keys; s++) total += weights[s] = Math.exp(weights[s] - most);
        for (let s = 0; s < keys; s++) {
          const share = weights[s] / total, at = s * stride + own;
          for (let i = 0; i < d; i++) y[from + i] += share * v[at + i];
        }
      }
    }
    return y;
  }

  function layerNorm(x, weight, bias, rows, epsilon) {
    const width = x.length / rows, y = new Float32Array(x.length);
    for (let from = 0; from < x.length; from += width) {
      let mean = 0, square = 0;
      for (let i = 0; i < width; i++) mean += x[from + i] / width;
      for (let i = 0; i < width; i++) square += (x[from + i] - mean) ** 2 / width;
      const scale = 1 / Math.sqrt(square + epsilon);
      for (let i = 0; i < width; i++)
        y[from + i] = (x[from + i] - mean) * scale * weight[i] + bias[i];
    }
    return y;
  }

  function rmsNorm(x, weight, rows, epsilon) {
    const width = x.length / rows, y = new Float32Array(x.length);
    for (let from = 0; from < x.length; from += width) {
      let square = 0;
      for (let i = 0; i < width; i++) square += x[from + i] ** 2 / width;
      const scale = 1 / Math.sqrt(square + epsilon);
      for (let i = 0; i < width; i++) y[from + i] = x[from + i] * scale * weight[i];
    }
    return y;
  }

  const geluTanh = x => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
  const gelu = x => 0.5 * x * (1 + erf(x / Math.SQRT2));
  const silu = x => x / (1 + Math.exp(-x));

  function erf(x) { // Abramowitz and Stegun 7.1.26, wrong by 2e-7 at most
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const sum = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t
      + 0.254829592) * t;
    return Math.sign(x) * (1 - sum * Math.exp(-x * x));
  }

  function add(x, y) {
    for (let i = 0; i < x.length; i++) x[i] += y[i];
  }

  // --- the eye: a photo becomes sixteen image tokens ---------------------------------------------

  // What each output pixel of one line is made of: bicubic, and wide enough not to leave any out.
  // Weights are whole numbers, as in PyTorch, so that the very same bytes come out.
  function taps(size, wanted) {
    const scale = size / wanted, support = 2 * scale, found = [];
    const cubic = x => x < 1 ? (1.5 * x - 2.5) * x * x + 1
      : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    let largest = 0;
    for (let o = 0; o < wanted; o++) {
      const centre = scale * (o + 0.5);
      const first = Math.max(Math.trunc(centre - support + 0.5), 0);
      const last = Math.min(Math.trunc(centre + support + 0.5), size);
      const raw = [];
      for (let i = first; i < last; i++) raw.push(cubic(Math.abs((i - centre + 0.5) / scale)));
      const total = raw.reduce((sum, w) => sum + w, 0);
      found.push({ first, weights: raw.map(w => w / total) });
      largest = Math.max(largest, ...raw.map(w => w / total));
    }
    let bits = 0;
    while (bits < 22 && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits++;
    for (const tap of found)
      tap.weights = tap.weights.map(w => Math.trunc(w * 2 ** bits + Math.sign(w) * 0.5));
    return { found, bits };
  }

  // Shrink every line of bytes `[lines, size, channels]`, and hand the picture back lying on its
  // side: done twice it is shrunk in both directions and stands upright again.
  function shrinkLines(bytes, lines, size, wanted) {
    const { found, bits } = taps(size, wanted), made = new Uint8ClampedArray(wanted * lines * 3);
    for (let line = 0; line < lines; line++)
      for (let o = 0; o < wanted; o++)
        for (let c = 0; c < 3; c++) {
          let sum = 1 << (bits - 1);
          found[o].weights.forEach((w, i) => {
            sum += w * bytes[(line * size + found[o].first + i) * 3 + c];
          });
          made[(o * lines + line) * 3 + c] = sum >> bits;
        }
    return made;
  }

  const shrink = (rgb, width, height, wanted) =>
    shrinkLines(shrinkLines(rgb, height, width, wanted), wanted, height, wanted);

  // Attention over patches, then an FFN, four times; then the connector into the language model.
  function see(eye, rgb, width, height) {
    const { image_size: size, patch_size: patch, num_attention_heads: heads } = eye.config;
    const { w, config } = eye, side = size / patch, rows = side * side;
    const bytes = shrink(rgb, width, height, size);
    const patches = new Float32Array(rows * 3 * patch * patch);
    let at = 0;
    for (let row = 0; row < side; row++)
      for (let column = 0; column < side; column++)
        for (let c = 0; c < 3; c++)
          for (let i = 0; i < patch; i++)
            for (let j = 0; j < patch; j++)
              patches[at++] = bytes[((row * patch + i) * size + column * patch + j) * 3 + c]
                / 127.5 - 1; // from -1 to 1
    const tower = "vision_tower.";
    let x = linear(patches, w[`${tower}embeddings.patch_embedding.weight`],
      w[`${tower}embeddings.patch_embedding.bias`], rows);
    add(x, w[`${tower}embeddings.position_embedding.weight`]);
    for (let layer = 0; layer < config.num_hidden_layers; layer++) {
      const name = `${tower}encoder.layers.${layer}.`;
      const own = part => [w[`${name}${part}.weight`], w[`${name}${part}.bias`], rows];
      const map = (part, input) => linear(input, ...own(part));
      const norm = part => layerNorm(x, ...own(part), config.layer_norm_eps);
      let h = norm("layer_norm1");
      h = attention(map("self_attn.q_proj", h), map("self_attn.k_proj", h),
        map("self_attn.v_proj", h), rows, heads, heads, () => rows);
      add(x, map("self_attn.out_proj", h));
      h = map("mlp.fc1", norm("layer_norm2")).map(geluTanh);
      add(x, map("mlp.fc2", h));
    }
    const connector = "multi_modal_projector.linear_";
    x = linear(x, w[`${connector}1.weight`], w[`${connector}1.bias`], rows).map(gelu);
    return linear(x, w[`${connector}2.weight`], w[`${connector}2.bias`], rows);
  }

  // --- the language model ------------------------------------------------------------------------

  const newCache = config => ({ length: 0, keys: [], values: [], config });

  // Keys and values of what was read before stay, so that a new word costs one row only.
  function remember(cache, layer, k, v, rows) {
    const width = k.length / rows, most = cache.config.max_position_embeddings;
    for (const [kept, now] of [[cache.keys, k], [cache.values, v]]) {
      kept[layer] = kept[layer] || new Float32Array(most * width);
      kept[layer].set(now, cache.length * width);
    }
    return [cache.keys[layer], cache.values[layer]];
  }

  // Rotary positions: within a head, i turns with i + d/2, in place.
  function rotate(x, rows, heads, first, theta) {
    const width = x.length / rows, d = width / heads;
    for (let i = 0; i < d / 2; i++) {
      const speed = Math.fround(theta ** (-2 * i / d));
      for (let t = 0; t < rows; t++) {
        const angle = Math.fround((first + t) * speed);
        const cos = Math.cos(angle), sin = Math.sin(angle);
        for (let at = t * width + i; at < (t + 1) * width; at += d) {
          const a = x[at], b = x[at + d / 2];
          x[at] = a * cos - b * sin;
          x[at + d / 2] = b * cos + a * sin;
        }
      }
    }
    return x;
  }

  // Read more rows, after those in the cache; return logits for the last `wanted` of them. What each
  // layer has written for the last row goes to `states`, where they are asked for.
  //
  // An edit by KVW is a gate for every knowledge vector, and a knowledge vector is a column of
  // down_proj: to scale the column is to scale the number that it is multiplied by. So the weights
  // are never touched, and to undo the edit is to leave the gates away.
  function readOn(mind, x, rows, cache, gates, wanted, states) {
    const { w, config } = mind, last = config.num_hidden_layers - 1, first = cache.length;
    const { num_attention_heads: heads, num_key_value_heads: shared, hidden_size: width } = config;
    const theta = config.rope_parameters.rope_theta, epsilon = config.rms_norm_eps;
    let start = first;
    for (let layer = 0; layer <= last; layer++) {
      const name = `language_model.model.layers.${layer}.`;
      const map = (part, input, count) => linear(input, w[`${name}${part}.weight`], null, count);
      let h = rmsNorm(x, w[`${name}input_layernorm.weight`], rows, epsilon);
      const k = rotate(map("self_attn.k_proj", h, rows), rows, shared, first, theta);
      const [keys, values] = remember(cache, layer, k, map("self_attn.v_proj", h, rows), rows);
      if (layer === last) { // nobody asks what the other rows would become
        h = h.subarray((rows - wanted) * width);
        x = x.slice((rows - wanted) * width);
        start += rows - wanted;
        rows = wanted;
      }
      const q = rotate(map("self_attn.q_proj", h, rows), rows, heads, start, theta);
      const from = start;
      h = attention(q, keys, values, rows, heads, shared, t => from + t + 1);
      add(x, map("self_attn.o_proj", h, rows));
      h = rmsNorm(x, w[`${name}post_attention_layernorm.weight`], rows, epsilon);
      const coefficients = map("mlp.gate_proj", h, rows), up = map("mlp.up_proj", h, rows);
      for (let i = 0; i < up.length; i++) coefficients[i] = silu(coefficients[i]) * up[i];
      if (gates) {
        const own = gates[layer];
        for (let at = 0; at < up.length; at += own.length)
          for (let i = 0; i < own.length; i++) coefficients[at + i] *= own[i];
      }
      add(x, map("mlp.down_proj", coefficients, rows));
      if (states) states.push(x.slice((rows - 1) * width)); // of the last row
    }
    cache.length = start + rows;
    x = rmsNorm(x, w["language_model.model.norm.weight"], rows, epsilon);
    return linear(x, w["language_model.model.embed_tokens.weight"], null, rows);
  }

  // Rows for tokens; each <image> takes the next of the image tokens.
  function embed(mind, tokens, image) {
    const { w, config, imageToken } = mind, width = config.hidden_size;
    const table = w["language_model.model.embed_tokens.weight"];
    const x = new Float32Array(tokens.length * width);
    let seen = 0;
    tokens.forEach((token, t) => {
      const row = token === imageToken ? image.subarray(seen++ * width, seen * width)
        : table.subarray(token * width, (token + 1) * width);
      x.set(row, t * width);
    });
    return x;
  }

  function read(mind, tokens, image, cache, gates, wanted = 1) {
    return readOn(mind, embed(mind, tokens, image), tokens.length, cache, gates, wanted);
  }

  // The logit lens: what each layer would say next, if the head read what it has written. `[layers]`
  // of logits; the last of them are the model's own.
  function lens(mind, tokens, image, gates) {
    const { w, config } = mind, states = [];
    readOn(mind, embed(mind, tokens, image), tokens.length, newCache(config), gates, 1, states);
    return states.map(state => linear(
      rmsNorm(state, w["language_model.model.norm.weight"], 1, config.rms_norm_eps),
      w["language_model.model.embed_tokens.weight"], null, 1));
  }

  function likeliest(logits, row, count) {
    let best = 0;
    for (let i = 1; i < count; i++)
      if (logits[row * count + i] > logits[row * count + best]) best = i;
    return best;
  }

  function softmax(logits) {
    const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const all = Float64Array.from(logits, value => Math.exp(value - most));
    const total = all.reduce((a, b) => a + b, 0);
    return all.map(value => value / total);
  }

  // The greedy answer, the logits of its first word, and the cache, with which to read on.
  function answer(mind, prompt, image, gates, most = 24) {
    const cache = newCache(mind.config), tokens = [];
    const first = read(mind, prompt, image, cache, gates);
    let logits = first;
    while (tokens.length < most && cache.length < mind.config.max_position_embeddings) {
      const next = likeliest(logits, 0, logits.length);
      if (next === mind.endToken) break;
      tokens.push(next);
      logits = read(mind, [next], image, cache, gates);
    }
    return { tokens, logits: first, cache, length: prompt.length };
  }

  // Several questions about one photo, one after the other, while a strength is dragged. What the
  // prompts begin with is read once. A question is read together with its taught answer, which gives
  // the probability of that answer; where another word is likelier, the answer goes on from there,
  // and the answer of the last strength is tried first. So most answers cost one reading. What is
  // said is what `answer` says.
  function reader(mind, prefix, image, gates) {
    const cache = newCache(mind.config), most = mind.config.max_position_embeddings;
    read(mind, prefix, image, cache, gates);

    // Read tokens behind `said`; add the likeliest word after it, and each word of a guess that is
    // the likeliest one. The number of words that were right, and the logits.
    function follow(tokens, guess, said) {
      const start = cache.length + tokens.length, wanted = guess.length + 1;
      const logits = read(mind, [...tokens, ...guess], null, cache, gates, wanted);
      const width = logits.length / wanted;
      let right = 0;
      for (; right <= guess.length; right++) {
        const next = likeliest(logits, right, width);
        said.push(next);
        if (next !== guess[right]) break;
      }
      cache.length = start + right; // what was read of a wrong guess goes
      return logits;
    }

    // `from` and `to`: which of the answer's words count for its probability.
    return ({ rest, taught, from, to, before }) => {
      cache.length = prefix.length;
      const said = [], logits = follow(rest, taught, said), width = logits.length / (taught.length + 1);
      const likely = taught.slice(from, to).reduce((product, token, i) => product *
        softmax(logits.subarray((from + i) * width, (from + i + 1) * width))[token], 1);
      while (said.at(-1) !== mind.endToken && said.length < 24 && cache.length < most) {
        const known = said.every((token, i) => token === before[i]);
        follow([said.at(-1)], known ? before.slice(said.length) : [], said);
      }
      return { tokens: said.filter(token => token !== mind.endToken), likely };
    };
  }

  // Exact match: is each word of the taught answer, and its end, the likeliest one?
  function exactMatch(mind, prompt, image, taught, gates) {
    const tokens = [...prompt, ...taught.slice(0, -1)], wanted = taught.length;
    const logits = read(mind, tokens, image, newCache(mind.config), gates, wanted);
    return taught.every((token, row) => likeliest(logits, row, logits.length / wanted) === token);
  }

  // How likely each of some answers begins, after what they have in common ("In ..."). If their
  // next words all differ, one look at one word is enough; else the words that follow count, too.
  function probabilities(mind, said, answers, gates) {
    let common = 0;
    while (answers.every(each => each[common] === answers[0][common])) common++;
    const cache = said.cache;
    cache.length = said.length; // the prompt stays, the answer that was given goes
    const next = softmax(common
      ? read(mind, answers[0].slice(0, common), null, cache, gates) : said.logits);
    const length = cache.length;
    if (new Set(answers.map(each => each[common])).size === answers.length)
      return answers.map(each => next[each[common]]);
    return answers.map(each => {
      let likely = next[each[common]];
      cache.length = length;
      for (let i = common + 1; i < each.length; i++)
        likely *= softmax(read(mind, [each[i - 1]], null, cache, gates))[each[i]];
      return likely;
    });
  }

  // --- words -------------------------------------------------------------------------------------

  // Byte-level BPE. Each byte has a letter of its own; pieces are joined in the order learned.
  function tokenizer({ vocabulary, merges, special }) {
    const letters = [], bytes = new Map(), marks = new Set(Object.values(special));
    const plain = b => (b > 32 && b < 127) || (b > 160 && b !== 173);
    for (let b = 0, odd = 256; b < 256; b++) {
      letters[b] = String.fromCodePoint(plain(b) ? b : odd++);
      bytes.set(letters[b], b);
    }
    const ids = new Map(vocabulary.map((piece, id) => [piece, id]));
    const ranks = new Map(merges.map((pair, rank) => [pair.join(" "), rank]));
    const words = /'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

    function pieces(word) {
      const parts = [...new TextEncoder().encode(word)].map(b => letters[b]);
      for (;;) {
        let best = Infinity, at = -1;
        for (let i = 0; i + 1 < parts.length; i++) {
          const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
          if (rank < best) [best, at] = [rank, i];
        }
        if (at < 0) return parts.map(part => ids.get(part));
        parts.splice(at, 2, parts[at] + parts[at + 1]);
      }
    }

    return {
      encode(text) {
        const spaced = /^\s/.test(text) ? text : ` ${text}`;
        return (spaced.match(words) || []).flatMap(pieces);
      },
      decode(tokens) {
        const said = tokens.filter(token => !marks.has(token)).map(token => vocabulary[token]);
        const all = [...said.join("")].map(letter => bytes.get(letter));
        return new TextDecoder().decode(Uint8Array.from(all)).trim();
      },
    };
  }

  // --- knowledge vector weakening ----------------------------------------------------------------

  // From coefficients to gates: min(1, (retain / forget)^G), one for each knowledge vector.
  // `forget` are the sums of |h| of the people to be forgotten, `everyone` those of all; who is
  // left is the difference, so only the files of the forgotten are needed.
  function gatesOf(forget, everyone, strength, epsilon = 1e-12) {
    const sum = new Float64Array(everyone.sums.length);
    let tokens = 0;
    for (const person of forget) {
      person.sums.forEach((value, i) => { sum[i] += value; });
      tokens += person.tokens;
    }
    const layers = everyone.layers, width = sum.length / layers, gates = [];
    for (let layer = 0; layer < layers; layer++) {
      gates.push(Float32Array.from({ length: width }, (_, i) => {
        const at = layer * width + i;
        const ofForget = sum[at] / tokens + epsilon;
        const ofRetain = (everyone.sums[at] - sum[at]) / (everyone.tokens - tokens) + epsilon;
        return Math.min(1, (ofRetain / ofForget) ** strength);
      }));
    }
    return gates;
  }

  // --- additions of low rank ---------------------------------------------------------------------

  // A copy of a language model whose output projections are W + B A; what does not change is
  // shared. B `[width, rank]` and A `[rank, columns]` lie in rows.
  function withAdditions(mind, layers) {
    const w = { ...mind.w }, width = mind.config.hidden_size;
    layers.forEach(({ rank, B, A }, layer) => {
      const name = `language_model.model.layers.${layer}.mlp.down_proj.weight`;
      const made = room(mind.w[name].length), columns = made.length / width;
      made.set(mind.w[name]);
      const sums = new Float64Array(columns);
      for (let row = 0; row < width; row++) {
        sums.fill(0);
        for (let r = 0; r < rank; r++) {
          const b = B[row * rank + r];
          for (let i = 0; i < columns; i++) sums[i] += b * A[r * columns + i];
        }
        for (let i = 0; i < columns; i++) made[row * columns + i] += sums[i];
      }
      w[name] = made;
    });
    return { ...mind, w };
  }

  // The same with the change of each layer's matrix as it is.
  function withChanges(mind, changes) {
    const w = { ...mind.w };
    for (const [layer, change] of Object.entries(changes)) {
      const name = `language_model.model.layers.${layer}.mlp.down_proj.weight`;
      w[name] = room(change.length);
      for (let i = 0; i < change.length; i++) w[name][i] = mind.w[name][i] + change[i];
    }
    return { ...mind, w };
  }

  // --- parts, loaded by script tags --------------------------------------------------------------

  const home = globalThis.document?.currentScript && new URL("data/", document.currentScript.src);
  const parts = {}, loading = {};

  function load(name) {
    loading[name] = loading[name] || new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(`${name}.js`, home);
      script.onload = () => resolve(parts[name]);
      script.onerror = () => {
        delete loading[name];
        reject(new Error(`${name}.js cannot be loaded`));
      };
      document.head.append(script);
    });
    return loading[name];
  }

  async function person(id) {
    const part = await load(id);
    if (typeof part.sums === "string") part.sums = floatsOf(part.sums);
    return part;
  }

  // The bytes of a picture, as the browser decodes it, without transparency.
  async function pixelsOf(url) {
    const picture = new Image();
    picture.src = url;
    await picture.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const rgb = rgba.filter((_, i) => i % 4 < 3);
    return [rgb, canvas.width, canvas.height];
  }

  // Image tokens of a photo: the eye looks once, however often the photo is asked about. All
  // models, the oracle too, share this eye.
  let eye;
  const looked = new Map();
  async function imageTokens(url) {
    if (!url) return null;
    if (!looked.has(url)) looked.set(url, see(eye, ...await pixelsOf(url)));
    return looked.get(url);
  }

  // The model, its words and its world, once these parts are there.
  async function open(names) {
    if (typeof DecompressionStream === "undefined")
      throw new Error("this browser is too old (it has no DecompressionStream)");
    await Promise.all(names.map(load));
    const { world } = parts, { special } = world.words;
    const words = tokenizer(world.words);
    words.size = world.words.vocabulary.length;
    eye = { w: await tensorsOf(parts.eye), config: parts.eye.config };

    async function languageModel(name) {
      const packed = await load(name);
      if (packed.layers) // an edit, not a model
        return withAdditions(vanilla, packed.layers.map(({ rank, B, A }) =>
          ({ rank, B: floatsOf(B), A: floatsOf(A) })));
      if (packed.changes) return withChanges(vanilla, await tensorsOf(packed.changes));
      return {
        w: await tensorsOf(packed), config: packed.config,
        imageToken: special["<image>"], endToken: special["<end>"],
      };
    }

    // <user> image tokens, the question <assistant>: the chat template of `pocket`.
    function promptOf(text, image) {
      const seen = image ? image.length / vanilla.config.hidden_size : 0;
      return [special["<user>"], ...Array(seen).fill(special["<image>"]), ...words.encode(text),
        special["<assistant>"]];
    }

    const vanilla = await languageModel("pocket");
    const everyone = { ...parts.everyone,
      sums: new Float64Array(bytesOf(parts.everyone.sums).buffer) };
    return { world, words, everyone, vanilla, languageModel, promptOf };
  }

  Object.assign(playground, {
    bytesOf, floatsOf, tensorsOf, shrink, see, read, newCache, answer, exactMatch, probabilities,
    softmax, tokenizer, gatesOf, withAdditions, lens, likeliest,
    reader, linear, room, parts, load, person, imageTokens, open, home, receive: (name, part) => { parts[name] = part; },
  });
})();

'use strict';
// Decodes the page's data: JSON for what is small, one gzip blob of typed arrays for the detections.

const meta = JSON.parse(document.getElementById('meta').textContent);
const TYPES = {
  float32: Float32Array, float64: Float64Array, int32: Int32Array,
  uint32: Uint32Array, uint16: Uint16Array, uint8: Uint8Array,
};

async function unpackArrays() {
  const packed = Uint8Array.from(atob(document.getElementById('blob').textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  const buffer = await new Response(stream).arrayBuffer();
  const arrays = {};
  for (const [name, { type, at, length }] of Object.entries(meta.arrays)) {
    arrays[name] = new TYPES[type](buffer, at, length);
  }
  return arrays;
}

// Detections as columns; positions are integers in steps from an origin, so that no precision is lost.
class Detections {
  constructor(arrays) {
    const described = meta.detections;
    Object.assign(this, { count: described.count, step: described.step, origin: described.origin });
    this.coords = arrays.coords;
    this.offsets = arrays.offsets;
    this.columns = described.columns.map((column) => ({ ...column, data: arrays[`column ${column.name}`] }));
    for (const column of this.columns) {
      if (column.kind === 'text') column.data = JSON.parse(new TextDecoder().decode(column.data));
    }
    this.categories = described.categories.map((name) => this.column(name));
    this.score = (this.column('score') || { data: new Float32Array(0) }).data;
    this.visible = new Uint8Array(this.count).fill(1);
    this.measure();
    this.index();
  }

  column(name) {
    return this.columns.find((column) => column.name === name);
  }

  value(column, i) {
    return column.kind === 'code' ? column.values[column.data[i]] : column.data[i];
  }

  // Bounding boxes in steps: (left, bottom, right, top) of each detection.
  measure() {
    const { coords, offsets, count } = this;
    this.boxes = new Float64Array(4 * count);
    this.reach = 0;
    for (let i = 0; i < count; i++) {
      let [left, bottom, right, top] = [Infinity, Infinity, -Infinity, -Infinity];
      for (let k = 2 * offsets[i]; k < 2 * offsets[i + 1]; k += 2) {
        left = Math.min(left, coords[k]);
        right = Math.max(right, coords[k]);
        bottom = Math.min(bottom, coords[k + 1]);
        top = Math.max(top, coords[k + 1]);
      }
      this.boxes.set([left, bottom, right, top], 4 * i);
      this.reach = Math.max(this.reach, (right - left) / 2, (top - bottom) / 2);
    }
  }

  // A uniform grid over the boxes' centres: the members of cell c stand in start[c] .. start[c + 1].
  index() {
    const { boxes, count } = this;
    let [width, height] = [1, 1];
    for (let i = 0; i < count; i++) {
      width = Math.max(width, boxes[4 * i + 2]);
      height = Math.max(height, boxes[4 * i + 3]);
    }
    this.cell = Math.max(1, Math.sqrt((width * height) / Math.max(1, count / 8)), Math.max(width, height) / 2000);
    this.across = Math.floor(width / this.cell) + 1;
    this.down = Math.floor(height / this.cell) + 1;
    this.start = new Uint32Array(this.across * this.down + 1);
    const cells = new Uint32Array(count);
    for (let i = 0; i < count; i++) {
      const x = Math.floor((boxes[4 * i] + boxes[4 * i + 2]) / 2 / this.cell);
      const y = Math.floor((boxes[4 * i + 1] + boxes[4 * i + 3]) / 2 / this.cell);
      cells[i] = y * this.across + x;
      this.start[cells[i] + 1]++;
    }
    for (let c = 0; c < this.start.length - 1; c++) this.start[c + 1] += this.start[c];
    const next = this.start.slice();
    this.members = new Uint32Array(count);
    for (let i = 0; i < count; i++) this.members[next[cells[i]]++] = i;
  }

  // Visible detections whose box may touch a rectangle in map units, in drawing order.
  within(left, bottom, right, top) {
    const { step, origin, reach, cell, across, down } = this;
    const toCell = (v, most) => Math.min(most - 1, Math.max(0, Math.floor(v / cell)));
    const x0 = toCell((left - origin[0]) / step - reach, across);
    const x1 = toCell((right - origin[0]) / step + reach, across);
    const y0 = toCell((bottom - origin[1]) / step - reach, down);
    const y1 = toCell((top - origin[1]) / step + reach, down);
    const found = [];
    for (let y = y0; y <= y1; y++) {
      for (let k = this.start[y * across + x0]; k < this.start[y * across + x1 + 1]; k++) {
        if (this.visible[this.members[k]]) found.push(this.members[k]);
      }
    }
    return Uint32Array.from(found).sort();
  }

  // The smallest visible detection that contains a point in map units, or -1.
  at(x, y, slack) {
    let [best, bestArea] = [-1, Infinity];
    const [px, py, s] = [(x - this.origin[0]) / this.step, (y - this.origin[1]) / this.step, slack / this.step];
    for (const i of this.within(x - slack, y - slack, x + slack, y + slack)) {
      const [left, bottom, right, top] = this.boxes.subarray(4 * i, 4 * i + 4);
      if (px < left - s || px > right + s || py < bottom - s || py > top + s) continue;
      const area = (right - left) * (top - bottom);
      if (area < bestArea) [best, bestArea] = [i, area];
    }
    return best;
  }

  // Keep those with enough score whose categories are all ticked.
  filter(least, ticked) {
    for (let i = 0; i < this.count; i++) {
      let keep = this.score[i] >= least;
      for (let c = 0; keep && c < this.categories.length; c++) keep = ticked[c][this.categories[c].data[i]];
      this.visible[i] = keep ? 1 : 0;
    }
  }
}

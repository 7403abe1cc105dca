// The camera and the drawing. Map units: web mercator metres, or pixels where there is no georeference.

const STATUS_COLOURS = { succeeded: '#4cd98a', empty: '#9fb0c4', failed: '#ff5c4d' };
const RAMP = [[75, 42, 155], [47, 123, 209], [34, 184, 160], [167, 216, 74], [255, 225, 74]];
const RAMP_STEPS = 24;
const SLOW_DRAW_MS = 25;
const SETTLE_MS = 120;

function rampColour(share) {
  const at = Math.min(0.9999, Math.max(0, share)) * (RAMP.length - 1);
  const [low, part] = [Math.floor(at), at % 1];
  return `rgb(${RAMP[low].map((v, k) => Math.round(v + (RAMP[low + 1][k] - v) * part)).join(',')})`;
}

class MapView {
  constructor(canvas, detections) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.detections = detections;
    this.show = { imagery: true, scenes: true, detections: true };
    this.colourBy = null;
    this.hovered = -1;
    this.selected = -1;
    this.onDraw = () => {};
    this.snapshot = null;
    this.images = meta.scenes.filter((scene) => scene.image).map((scene) => {
      const image = new Image();
      image.onload = () => this.redraw();
      image.src = scene.image.src;
      return { image, bounds: scene.image.bounds };
    });
    this.bounds = this.findBounds();
    this.centre = [0, 0];
    this.scale = 1;
  }

  findBounds() {
    const { boxes, count, origin, step } = this.detections;
    const all = [Infinity, Infinity, -Infinity, -Infinity];
    const grow = (x, y) => {
      all[0] = Math.min(all[0], x); all[1] = Math.min(all[1], y);
      all[2] = Math.max(all[2], x); all[3] = Math.max(all[3], y);
    };
    for (const scene of meta.scenes) for (const ring of scene.outline) for (const [x, y] of ring) grow(x, y);
    for (let i = 0; i < count; i++) {
      grow(origin[0] + step * boxes[4 * i], origin[1] + step * boxes[4 * i + 1]);
      grow(origin[0] + step * boxes[4 * i + 2], origin[1] + step * boxes[4 * i + 3]);
    }
    return Number.isFinite(all[0]) ? all : [-1000, -1000, 1000, 1000];
  }

  resize() {
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    this.ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(width * this.ratio));
    this.canvas.height = Math.max(1, Math.round(height * this.ratio));
    this.size = [width, height];
    this.redraw();
  }

  fit([left, bottom, right, top]) {
    const [width, height] = this.size;
    this.centre = [(left + right) / 2, (bottom + top) / 2];
    this.scale = 0.94 * Math.min(width / Math.max(right - left, 1), height / Math.max(top - bottom, 1));
    this.redraw();
  }

  toScreen(x, y) {
    return [(x - this.centre[0]) * this.scale + this.size[0] / 2, (this.centre[1] - y) * this.scale + this.size[1] / 2];
  }

  toMap(px, py) {
    return [this.centre[0] + (px - this.size[0] / 2) / this.scale, this.centre[1] - (py - this.size[1] / 2) / this.scale];
  }

  pan(dx, dy) {
    this.centre = [this.centre[0] - dx / this.scale, this.centre[1] + dy / this.scale];
    this.touch();
  }

  zoom(factor, px = this.size[0] / 2, py = this.size[1] / 2) {
    const [x, y] = this.toMap(px, py);
    const widest = 0.2 * Math.min(this.size[0] / (this.bounds[2] - this.bounds[0] + 1), this.size[1] / (this.bounds[3] - this.bounds[1] + 1));
    this.scale = Math.min(400, Math.max(Math.min(widest, this.scale), this.scale * factor));
    const [nx, ny] = this.toMap(px, py);
    this.centre = [this.centre[0] + x - nx, this.centre[1] + y - ny];
    this.touch();
  }

  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
    });
  }

  // For a moved camera or another highlight. Where a full drawing is slow, the last one is shown at
  // its new place at once, and drawn properly when the movement has come to rest.
  touch() {
    if (!this.snapshot) { this.redraw(); return; }
    requestAnimationFrame(() => this.snapshot && this.present());
    clearTimeout(this.settle);
    const { centre, scale } = this.snapshot;
    if (centre !== this.centre || scale !== this.scale) this.settle = setTimeout(() => this.redraw(), SETTLE_MS);
  }

  clear() {
    this.context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.context.clearRect(0, 0, this.size[0], this.size[1]);
  }

  draw() {
    const begun = performance.now();
    this.clear();
    if (this.show.imagery) this.drawImagery();
    if (this.show.scenes) this.drawScenes();
    if (this.show.detections) this.drawDetections();
    this.snapshot = performance.now() - begun > SLOW_DRAW_MS ? this.takeSnapshot() : null;
    this.drawHighlights();
    this.onDraw();
  }

  takeSnapshot() {
    const copy = document.createElement('canvas');
    [copy.width, copy.height] = [this.canvas.width, this.canvas.height];
    copy.getContext('2d').drawImage(this.canvas, 0, 0);
    return { copy, centre: this.centre, scale: this.scale };
  }

  present() {
    const { copy, centre, scale } = this.snapshot;
    this.clear();
    const [x, y] = this.toScreen(centre[0], centre[1]);
    const [width, height] = this.size.map((side) => (side * this.scale) / scale);
    this.context.drawImage(copy, x - width / 2, y - height / 2, width, height);
    this.drawHighlights();
    this.onDraw();
  }

  drawImagery() {
    // Enlarged pixels stay pixels: smoothing would pretend to detail that is not there.
    for (const { image, bounds } of this.images) {
      if (!image.complete || !image.naturalWidth) continue;
      const [x0, y0] = this.toScreen(bounds[0], bounds[3]);
      const [x1, y1] = this.toScreen(bounds[2], bounds[1]);
      if (x1 < 0 || y1 < 0 || x0 > this.size[0] || y0 > this.size[1]) continue;
      this.context.imageSmoothingEnabled = (x1 - x0) / image.naturalWidth < 3;
      this.context.imageSmoothingQuality = 'high';
      this.context.drawImage(image, x0, y0, x1 - x0, y1 - y0);
    }
  }

  drawScenes() {
    const { context } = this;
    for (const scene of meta.scenes) {
      context.beginPath();
      for (const ring of scene.outline) {
        ring.forEach(([x, y], k) => {
          const [px, py] = this.toScreen(x, y);
          if (k) context.lineTo(px, py); else context.moveTo(px, py);
        });
        context.closePath();
      }
      context.strokeStyle = '#000a';
      context.lineWidth = 4;
      context.stroke();
      context.strokeStyle = STATUS_COLOURS[scene.status] || '#ffffff';
      context.lineWidth = 2;
      context.setLineDash(scene.status === 'succeeded' ? [] : [7, 4]);
      context.stroke();
      context.setLineDash([]);
    }
  }

  // The colour class of each detection, and the colours of the classes.
  colours() {
    const { detections, colourBy } = this;
    if (colourBy !== null) return [colourBy.data, colourBy.colours];
    this.ramp ??= [
      Uint8Array.from(detections.score, (s) => Math.min(RAMP_STEPS - 1, Math.max(0, Math.floor(s * RAMP_STEPS)))),
      Array.from({ length: RAMP_STEPS }, (_, k) => rampColour((k + 0.5) / RAMP_STEPS)),
    ];
    return this.ramp;
  }

  drawDetections() {
    const { context, detections, size } = this;
    const [left, top] = this.toMap(0, 0);
    const [right, bottom] = this.toMap(size[0], size[1]);
    const found = detections.within(left, bottom, right, top);
    const [classes, colours] = this.colours();
    const groups = colours.map(() => []);
    for (const i of found) groups[classes[i]].push(i);
    // Outlines thin out as boxes get small; below two pixels a dot is all that can be seen.
    groups.forEach((members, k) => {
      context.strokeStyle = colours[k];
      context.fillStyle = colours[k];
      context.lineWidth = this.scale > 8 ? 2 : 1.5;
      context.beginPath();
      for (const i of members) this.trace(i, true);
      context.stroke();
    });
  }

  drawHighlights() {
    const { context, detections } = this;
    if (!this.show.detections) return;
    for (const i of new Set([this.hovered, this.selected])) {
      if (i < 0 || !detections.visible[i]) continue;
      context.beginPath();
      this.trace(i, false);
      context.fillStyle = '#ffffff40';
      context.fill();
      context.strokeStyle = '#000';
      context.lineWidth = 5;
      context.stroke();
      context.strokeStyle = '#fff';
      context.lineWidth = 2.5;
      context.stroke();
    }
  }

  trace(i, dots) {
    const { context, scale } = this;
    const { coords, offsets, boxes, origin, step } = this.detections;
    const dx = (origin[0] - this.centre[0]) * scale + this.size[0] / 2;
    const dy = (this.centre[1] - origin[1]) * scale + this.size[1] / 2;
    const unit = step * scale;
    if (dots && Math.max(boxes[4 * i + 2] - boxes[4 * i], boxes[4 * i + 3] - boxes[4 * i + 1]) * unit < 2) {
      context.fillRect(dx + boxes[4 * i] * unit - 0.5, dy - boxes[4 * i + 3] * unit - 0.5, 2, 2);
      return;
    }
    const end = 2 * offsets[i + 1] - 2;
    for (let k = 2 * offsets[i]; k < end; k += 2) {
      const [x, y] = [dx + coords[k] * unit, dy - coords[k + 1] * unit];
      if (k === 2 * offsets[i]) context.moveTo(x, y); else context.lineTo(x, y);
    }
    context.closePath();
  }
}

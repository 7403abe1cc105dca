// The panel, the pointer and the keyboard. All text from the data goes in through textContent.

const byId = (id) => document.getElementById(id);
const whole = (n) => n.toLocaleString('en');

function element(tag, { text, className, ...rest } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  Object.assign(made, rest);
  made.append(...children);
  return made;
}

function swatch(colour) {
  const made = element('span', { className: 'swatch' });
  made.style.background = colour;
  return made;
}

const shownName = (value) => (value === null || value === '' ? '(none)' : value);

function shownValue(value) {
  if (value === null || Number.isNaN(value)) return '–';
  return typeof value === 'number' ? String(Number(value.toFixed(3))) : value;
}

function buildLegend(view, detections, refresh) {
  const ticked = detections.categories.map((column) => new Array(column.values.length).fill(true));
  const counters = [];
  detections.categories.forEach((column, c) => {
    const totals = new Map(meta.totals[column.name]);
    const order = column.values.map((_, code) => code).sort((a, b) => totals.get(column.values[b]) - totals.get(column.values[a]));
    column.colours = [];
    order.forEach((code, place) => { column.colours[code] = meta.palette[place % meta.palette.length]; });
    const section = element('section', {}, element('h2', { text: column.name }));
    counters.push([]);
    for (const code of order) {
      const box = element('input', { type: 'checkbox', checked: true });
      box.addEventListener('change', () => { ticked[c][code] = box.checked; refresh(); });
      const count = element('span', { className: 'count' });
      counters[c][code] = { count, total: totals.get(column.values[code]) || 0 };
      const name = element('span', { className: 'name', text: shownName(column.values[code]) });
      section.append(element('label', {}, box, swatch(column.colours[code]), name, count));
    }
    byId('legend').append(section);
  });
  const recount = () => {
    detections.categories.forEach((column, c) => {
      const shown = new Uint32Array(column.values.length);
      for (let i = 0; i < detections.count; i++) if (detections.visible[i]) shown[column.data[i]]++;
      counters[c].forEach(({ count, total }, code) => {
        count.textContent = shown[code] === total ? whole(total) : `${whole(shown[code])} of ${whole(total)}`;
      });
    });
  };
  return { ticked, recount };
}

function buildColourChoice(view, detections) {
  const select = byId('colour-by');
  for (const column of detections.categories) select.append(new Option(column.name, column.name));
  select.append(new Option('score', ''));
  // A crop model says more than the detector's one class.
  const last = detections.categories.at(-1);
  const telling = detections.categories.findLast((column) => column.values.length > 1) || last;
  select.value = telling ? telling.name : '';
  const choose = () => {
    view.colourBy = select.value ? detections.column(select.value) : null;
    byId('ramp').hidden = Boolean(select.value);
    view.redraw();
  };
  select.addEventListener('change', choose);
  choose();
}

function buildScenes(view) {
  const list = byId('scenes');
  const tally = {};
  for (const { status } of meta.scenes) tally[status] = (tally[status] || 0) + 1;
  const parts = Object.entries(tally).map(([status, count]) => `${whole(count)} ${status}`);
  list.append(element('h2', { text: `Scenes: ${parts.join(', ') || 'none'}` }));
  const weight = { failed: 0, empty: 1, succeeded: 2 };
  for (const scene of [...meta.scenes].sort((a, b) => weight[a.status] - weight[b.status]).slice(0, 500)) {
    const line = element('span', { className: 'scene-line' }, swatch(STATUS_COLOURS[scene.status] || '#fff'),
      element('span', { className: 'name', text: scene.id }),
      element('span', { className: 'count', text: scene.status === 'succeeded' ? whole(scene.rows) : scene.status }));
    const item = element('button', { type: 'button', className: 'scene', title: scene.href }, line);
    if (scene.error) item.append(element('small', { className: 'bad', text: scene.error }));
    if (scene.note) item.append(element('small', { text: scene.note }));
    if (!scene.outline.length) item.append(element('small', { text: 'Its place is not known.' }));
    item.addEventListener('click', () => {
      const points = scene.outline.flat();
      if (!points.length) return;
      const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
      view.fit([Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]);
    });
    list.append(item);
  }
  if (meta.scenes.length > 500) list.append(element('p', { text: `and ${whole(meta.scenes.length - 500)} more` }));
}

function showDetail(view, detections, i) {
  view.selected = i;
  byId('detail').hidden = i < 0;
  if (i >= 0) {
    const rows = detections.columns.flatMap((column) => [
      element('dt', { text: column.name }), element('dd', { text: shownValue(detections.value(column, i)) })]);
    byId('detail-rows').replaceChildren(...rows);
  }
  view.touch();
}

function latitude(y) {
  return (360 / Math.PI) * Math.atan(Math.exp(y / 6378137)) - 90;
}

function showScale(view) {
  const squash = meta.georeferenced ? Math.cos((latitude(view.centre[1]) * Math.PI) / 180) : 1;
  const perPixel = squash / view.scale;
  const most = 140 * perPixel;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((k) => k * power).find((v) => v <= most);
  const unit = meta.georeferenced ? (length >= 1000 ? [length / 1000, 'km'] : length < 1 ? [length * 100, 'cm'] : [length, 'm']) : [length, 'px'];
  byId('scale-text').textContent = `${Number(unit[0].toPrecision(2))} ${unit[1]}`;
  byId('scale-bar').style.width = `${length / perPixel}px`;
}

function showPosition(view, px, py) {
  const [x, y] = view.toMap(px, py);
  byId('position').textContent = meta.georeferenced
    ? `${latitude(y).toFixed(6)}°, ${((x / 6378137) * (180 / Math.PI)).toFixed(6)}°`
    : `${x.toFixed(1)}, ${(-y).toFixed(1)} px`;
}

function listenToPointers(view, detections) {
  const { canvas } = view;
  const held = new Map();
  let moved = 0;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const tip = byId('tip');
  const hover = (px, py) => {
    const [x, y] = view.toMap(px, py);
    const i = view.show.detections ? detections.at(x, y, 2 / view.scale) : -1;
    canvas.classList.toggle('over', i >= 0);
    tip.hidden = i < 0;
    if (i >= 0) {
      const words = detections.categories.map((column) => shownName(detections.value(column, i)));
      tip.textContent = `${words.join(' · ')} · ${detections.score[i].toFixed(2)}`;
      tip.style.left = `${Math.min(px + 14, view.size[0] - tip.offsetWidth - 4)}px`;
      tip.style.top = `${Math.max(py - 34, 4)}px`;
    }
    if (i !== view.hovered) { view.hovered = i; view.touch(); }
    return i;
  };
  canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, place(event));
    moved = held.size > 1 ? Infinity : 0;
  });
  canvas.addEventListener('pointermove', (event) => {
    const [px, py] = place(event);
    showPosition(view, px, py);
    const before = held.get(event.pointerId);
    if (!before) { hover(px, py); return; }
    const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const spread = (p) => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
      view.pan((px - before[0]) / 2, (py - before[1]) / 2);
      view.zoom(spread([px, py]) / spread(before), (px + other[0]) / 2, (py + other[1]) / 2);
    } else {
      moved += Math.hypot(px - before[0], py - before[1]);
      view.pan(px - before[0], py - before[1]);
    }
    held.set(event.pointerId, [px, py]);
    canvas.classList.add('dragging');
  });
  const release = (event) => {
    if (held.delete(event.pointerId) && event.type === 'pointerup' && moved < 4) {
      showDetail(view, detections, hover(...place(event)));
    }
    canvas.classList.remove('dragging');
  };
  canvas.addEventListener('pointerup', release);
  canvas.addEventListener('pointercancel', release);
  canvas.addEventListener('pointerleave', () => { tip.hidden = true; byId('position').textContent = ''; });
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    view.zoom(Math.exp(-Math.max(-240, Math.min(240, event.deltaY * lines)) / 300), ...place(event));
  }, { passive: false });
}

function listenToKeys(view, detections) {
  const all = () => view.fit(view.bounds);
  const keys = {
    ArrowLeft: () => view.pan(80, 0), ArrowRight: () => view.pan(-80, 0),
    ArrowUp: () => view.pan(0, 80), ArrowDown: () => view.pan(0, -80),
    '+': () => view.zoom(1.5), '=': () => view.zoom(1.5), '-': () => view.zoom(1 / 1.5),
    0: all, Home: all, Escape: () => showDetail(view, detections, -1),
  };
  view.canvas.addEventListener('keydown', (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  byId('zoom-in').addEventListener('click', () => view.zoom(1.5));
  byId('zoom-out').addEventListener('click', () => view.zoom(1 / 1.5));
  byId('zoom-all').addEventListener('click', all);
  byId('detail-close').addEventListener('click', () => showDetail(view, detections, -1));
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
}

async function start() {
  const detections = new Detections(await unpackArrays());
  const view = new MapView(byId('map'), detections);
  const slider = byId('score');
  slider.min = detections.count ? Math.floor(detections.score.reduce((a, b) => Math.min(a, b), 1) * 100) / 100 : 0;
  slider.value = slider.min;
  const refresh = () => {
    byId('score-value').textContent = Number(slider.value).toFixed(2);
    detections.filter(Number(slider.value) === Number(slider.min) ? -Infinity : Number(slider.value), legend.ticked);
    legend.recount();
    const shown = detections.visible.reduce((a, b) => a + b, 0);
    const windows = meta.scenes.reduce((sum, scene) => sum + scene.windows, 0);
    const amount = shown === meta.total ? whole(shown) : `${whole(shown)} of ${whole(meta.total)}`;
    byId('summary').textContent = `${amount} detections in ${whole(meta.scenes.length)} scenes, ${whole(windows)} windows`;
    view.redraw();
  };
  const legend = buildLegend(view, detections, refresh);
  slider.addEventListener('input', refresh);
  for (const layer of ['imagery', 'scenes', 'detections']) {
    byId(`show-${layer}`).addEventListener('change', (event) => { view.show[layer] = event.target.checked; view.redraw(); });
  }
  byId('notes').hidden = !meta.notes.length;
  byId('notes').append(...meta.notes.map((text) => element('p', { text })));
  byId('toggle-panel').addEventListener('click', (event) => {
    byId('panel').hidden = !byId('panel').hidden;
    event.currentTarget.setAttribute('aria-expanded', String(!byId('panel').hidden));
  });
  byId('theme').addEventListener('click', () => setTheme(document.documentElement.dataset.theme !== 'dark'));
  buildScenes(view);
  view.onDraw = () => showScale(view);
  view.resize();
  buildColourChoice(view, detections);
  listenToPointers(view, detections);
  listenToKeys(view, detections);
  new ResizeObserver(() => view.resize()).observe(byId('stage'));
  refresh();
  view.fit(view.bounds);
  view.draw();
  document.documentElement.dataset.ready = 'true';
}

setTheme(matchMedia('(prefers-color-scheme: dark)').matches);
start().catch((error) => { byId('summary').textContent = `This page can't be shown: ${error.message}`; });

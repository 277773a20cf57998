// A canvas on which boxes are drawn, moved, resized, renamed and removed. The value is JSON, a list
// of {label, cx, cy, w, h} in units of the frame, '' without boxes.
const canvas = element.querySelector('canvas');
const labels = element.querySelector('select');
const pen = canvas.getContext('2d');
const [SMALLEST, CORNER] = [0.04, 0.04];
for (const name of props.names) labels.add(new Option(name));
let boxes = [];
let chosen = -1;
let drag = null;

const clip = (x, low, high) => Math.min(Math.max(x, low), high);
const colour = (label) => {
  const number = Math.max(0, props.names.indexOf(label));
  return props.colours[number % props.colours.length];
};

function read() {
  try {
    boxes = props.value ? JSON.parse(props.value) : [];
  } catch {
    boxes = [];
  }
  chosen = Math.min(chosen, boxes.length - 1);
  paint();
}

function write() {
  const round = (x) => Math.round(x * 1e5) / 1e5;
  boxes = boxes.map(({ label, cx, cy, w, h }) => ({
    label, cx: round(cx), cy: round(cy), w: round(w), h: round(h),
  }));
  props.value = boxes.length ? JSON.stringify(boxes) : '';
  paint();
  trigger('input');
}

function paint() {
  const side = canvas.width;
  pen.fillStyle = '#f8f8f8';
  pen.fillRect(0, 0, side, side);
  pen.font = '14px sans-serif';
  boxes.forEach(({ label, cx, cy, w, h }, number) => {
    const [x, y] = [(cx - w / 2) * side, (cy - h / 2) * side];
    pen.strokeStyle = pen.fillStyle = colour(label);
    pen.lineWidth = number === chosen ? 4 : 2;
    pen.globalAlpha = 0.15;
    pen.fillRect(x, y, w * side, h * side);
    pen.globalAlpha = 1;
    pen.strokeRect(x, y, w * side, h * side);
    pen.fillText(label, x + 4, y + 16);
    pen.fillRect(x + w * side - 8, y + h * side - 8, 8, 8);
  });
}

function place(event) {
  const frame = canvas.getBoundingClientRect();
  return [
    clip((event.clientX - frame.left) / frame.width, 0, 1),
    clip((event.clientY - frame.top) / frame.height, 0, 1),
  ];
}

// the smallest box under a point, so that one within another can be reached
function under(x, y) {
  let found = -1;
  boxes.forEach(({ cx, cy, w, h }, number) => {
    const inside = Math.abs(x - cx) <= w / 2 && Math.abs(y - cy) <= h / 2;
    if (inside && (found < 0 || w * h < boxes[found].w * boxes[found].h)) found = number;
  });
  return found;
}

// a box between two points
function span(box, x0, y0, x1, y1) {
  [box.cx, box.cy] = [(x0 + x1) / 2, (y0 + y1) / 2];
  [box.w, box.h] = [Math.abs(x1 - x0), Math.abs(y1 - y0)];
}

canvas.addEventListener('pointerdown', (event) => {
  const [x, y] = place(event);
  canvas.setPointerCapture(event.pointerId);
  chosen = under(x, y);
  if (chosen < 0) {
    boxes.push({ label: labels.value, cx: x, cy: y, w: 0, h: 0 });
    chosen = boxes.length - 1;
    drag = { kind: 'new', x, y };
  } else {
    const { label, cx, cy, w, h } = boxes[chosen];
    labels.value = label;
    const corner = cx + w / 2 - x < CORNER && cy + h / 2 - y < CORNER;
    drag = corner
      ? { kind: 'resize', x: cx - w / 2, y: cy - h / 2 }
      : { kind: 'move', x: x - cx, y: y - cy };
  }
  paint();
});

canvas.addEventListener('pointermove', (event) => {
  if (!drag) return;
  const [x, y] = place(event);
  const box = boxes[chosen];
  drag.moved = true;
  if (drag.kind === 'move') {
    box.cx = clip(x - drag.x, box.w / 2, 1 - box.w / 2);
    box.cy = clip(y - drag.y, box.h / 2, 1 - box.h / 2);
  } else if (drag.kind === 'resize') {
    span(box, drag.x, drag.y, Math.max(x, drag.x + SMALLEST), Math.max(y, drag.y + SMALLEST));
  } else {
    span(box, drag.x, drag.y, x, y);
  }
  paint();
});

canvas.addEventListener('pointerup', () => {
  if (!drag) return;
  const { moved } = drag;
  drag = null;
  const { w, h } = boxes[chosen];
  // a click beside all boxes
  if (Math.min(w, h) < SMALLEST) {
    boxes.splice(chosen, 1);
    chosen = -1;
    paint();
  } else if (moved) {
    write();
  }
});

function remove() {
  if (chosen < 0) return;
  boxes.splice(chosen, 1);
  chosen = -1;
  write();
}

canvas.addEventListener('keydown', (event) => {
  if (['Delete', 'Backspace'].includes(event.key)) remove();
});
element.addEventListener('click', (event) => {
  const what = event.target.dataset.do;
  if (what === 'remove') remove();
  if (what === 'clear') {
    [boxes, chosen] = [[], -1];
    props.value = '';
    paint();
  }
});
labels.addEventListener('change', () => {
  if (chosen < 0) return;
  boxes[chosen].label = labels.value;
  write();
});
watch('value', read);
read();

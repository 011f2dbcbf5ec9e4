// A canvas to draw a digit on. Digits are normalised as in MNIST: scaled to 20 × 20 pixels, with the centre of mass in the
// middle of 28 × 28 (LeCun et al., 1998, "Gradient-based learning applied to document recognition").
const pad = document.getElementById("pad");
const ink = pad.getContext("2d", { willReadFrequently: true });
const SIDE = 28, DIGIT_SIDE = 20;
let last = null;

export function clear() {
  ink.fillStyle = "#000";
  ink.fillRect(0, 0, pad.width, pad.height);
}

function position(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
}

function draw(event) {
  if (!last) return;
  const current = position(event);
  ink.strokeStyle = "#fff";
  ink.lineWidth = 20;
  ink.lineCap = ink.lineJoin = "round";
  ink.beginPath();
  ink.moveTo(...last);
  ink.lineTo(...current);
  ink.stroke();
  last = current;
}

pad.onpointerdown = event => { pad.setPointerCapture(event.pointerId); last = position(event); draw(event); };
pad.onpointermove = draw;
pad.onpointerup = pad.onpointercancel = () => { last = null; };
clear();

function measure(context, width, height) {
  const pixels = context.getImageData(0, 0, width, height).data;
  const sums = { left: width, right: -1, top: height, bottom: -1, mass: 0, x: 0, y: 0 };
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const light = pixels[(y * width + x) * 4];
    if (!light) continue;
    sums.left = Math.min(sums.left, x); sums.right = Math.max(sums.right, x);
    sums.top = Math.min(sums.top, y); sums.bottom = Math.max(sums.bottom, y);
    sums.mass += light; sums.x += light * x; sums.y += light * y;
  }
  return sums;
}

function blankCanvas() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillRect(0, 0, SIDE, SIDE);
  return [canvas, context];
}

export async function readDigit() {
  const drawn = measure(ink, pad.width, pad.height);
  if (!drawn.mass) return null;
  const width = drawn.right - drawn.left + 1, height = drawn.bottom - drawn.top + 1;
  const scale = DIGIT_SIDE / Math.max(width, height);
  const [small, scaled] = blankCanvas();
  scaled.imageSmoothingQuality = "high";
  scaled.drawImage(pad, drawn.left, drawn.top, width, height,
    (SIDE - width * scale) / 2, (SIDE - height * scale) / 2, width * scale, height * scale);
  const moments = measure(scaled, SIDE, SIDE);
  const [centred, context] = blankCanvas();
  context.drawImage(small, Math.round(SIDE / 2 - 0.5 - moments.x / moments.mass), Math.round(SIDE / 2 - 0.5 - moments.y / moments.mass));
  return new Promise(done => centred.toBlob(done, "image/png"));
}

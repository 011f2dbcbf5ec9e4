// A pad to draw a digit on, and what MNIST made of digits: the ink within 20 pixels, its centre of mass in the middle of 28.
const pad = document.getElementById("pad");
const ink = pad.getContext("2d", { willReadFrequently: true });
const SIDE = 28, FIT = 20;
let last = null;

export function wipe() {
  ink.fillStyle = "#000";
  ink.fillRect(0, 0, pad.width, pad.height);
}

function place(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
}

function draw(event) {
  if (!last) return;
  const here = place(event);
  ink.strokeStyle = "#fff";
  ink.lineWidth = 20;
  ink.lineCap = ink.lineJoin = "round";
  ink.beginPath();
  ink.moveTo(...last);
  ink.lineTo(...here);
  ink.stroke();
  last = here;
}

pad.onpointerdown = event => { pad.setPointerCapture(event.pointerId); last = place(event); draw(event); };
pad.onpointermove = draw;
pad.onpointerup = pad.onpointercancel = () => { last = null; };
wipe();

function measure(context, width, height) {
  const pixels = context.getImageData(0, 0, width, height).data;
  const found = { left: width, right: -1, top: height, bottom: -1, mass: 0, x: 0, y: 0 };
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const light = pixels[(y * width + x) * 4];
    if (!light) continue;
    found.left = Math.min(found.left, x); found.right = Math.max(found.right, x);
    found.top = Math.min(found.top, y); found.bottom = Math.max(found.bottom, y);
    found.mass += light; found.x += light * x; found.y += light * y;
  }
  return found;
}

function blank() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillRect(0, 0, SIDE, SIDE);
  return [canvas, context];
}

export async function readDigit() {
  const whole = measure(ink, pad.width, pad.height);
  if (!whole.mass) return null;
  const width = whole.right - whole.left + 1, height = whole.bottom - whole.top + 1;
  const scale = FIT / Math.max(width, height);
  const [small, scaled] = blank();
  scaled.imageSmoothingQuality = "high";
  scaled.drawImage(pad, whole.left, whole.top, width, height,
    (SIDE - width * scale) / 2, (SIDE - height * scale) / 2, width * scale, height * scale);
  const at = measure(scaled, SIDE, SIDE);
  const [centred, context] = blank();
  context.drawImage(small, Math.round(SIDE / 2 - 0.5 - at.x / at.mass), Math.round(SIDE / 2 - 0.5 - at.y / at.mass));
  return new Promise(done => centred.toBlob(done, "image/png"));
}

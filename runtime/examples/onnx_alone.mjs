// A photograph and a face box -> 68 landmarks, by the ONNX file alone, in Node. onnx_alone.html uses it in browsers.
//
//     npm install onnxruntime-node
//     node onnx_alone.mjs face.onnx photo.ppm X1 Y1 X2 Y2 [LOOKS]
//
// The same as onnx_alone.py, which explains it. Node reads no JPEG by itself: this example reads PPM files, as
// `ffmpeg -i photo.jpg photo.ppm` writes them. Any library that gives RGB bytes will do, for instance `sharp`.

const inNode = typeof process !== "undefined";
const ort = inNode
  ? (await import("node:module")).createRequire(import.meta.url)("onnxruntime-node")
  : await import("onnxruntime-web");
const CENTRE_MM = [0, -30, 0], CROP_MM = 190, BOX_MM = 140;

async function readPpm(path) {
  const bytes = (await import("node:fs")).readFileSync(path);
  const [head, width, height] = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.toString("latin1", 0, 64));
  return { width: +width, height: +height, rgb: bytes.subarray(head.length) };
}

const squareFromBox = (x1, y1, x2, y2) =>
  ({ x: (x1 + x2) / 2, y: (y1 + y2) / 2, side: Math.max(x2 - x1, y2 - y1) * CROP_MM / BOX_MM, roll: 0 });

// camera: frame_from_head, 12 numbers, row by row
function squareFromCamera(camera) {
  const [a, b, c] = [0, 4, 8].map((row) => camera.slice(row, row + 4));
  const at = (row) => row[0] * CENTRE_MM[0] + row[1] * CENTRE_MM[1] + row[2] * CENTRE_MM[2] + row[3];
  const determinant = a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
    + a[2] * (b[0] * c[1] - b[1] * c[0]);
  return { x: at(a), y: at(b), side: CROP_MM * Math.cbrt(Math.abs(determinant)), roll: Math.atan2(a[1], -b[1]) };
}

// The mean of 2 x 2 pixels; an odd last row or column counts twice.
function halved({ width, height, rgb }) {
  const half = { width: (width + 1) >> 1, height: (height + 1) >> 1 };
  half.rgb = new Uint8Array(half.width * half.height * 3);
  for (let y = 0, to = 0; y < half.height; y++)
    for (let x = 0; x < half.width; x++)
      for (let k = 0; k < 3; k++, to++) {
        const at = (dx, dy) =>
          rgb[(Math.min(2 * y + dy, height - 1) * width + Math.min(2 * x + dx, width - 1)) * 3 + k];
        half.rgb[to] = (at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1) + 2) >> 2;
      }
  return half;
}

// The crop as BGR bytes, and the c, s, x, y with which its pixel (u, v) is frame pixel (cu - sv + x, su + cv + y).
function cropOf(image, square, size) {
  const scale = square.side / size, middle = (size - 1) / 2;
  let c = scale * Math.cos(square.roll), s = scale * Math.sin(square.roll);
  let x = square.x - (c - s) * middle, y = square.y - (s + c) * middle;
  const frame = { c, s, x, y, scale };
  for (let n = Math.round(Math.log2(Math.max(scale, 1))); n > 0; n--) {
    image = halved(image);
    [c, s, x, y] = [c / 2, s / 2, (x - 0.5) / 2, (y - 0.5) / 2];
  }
  const { width, height, rgb } = image, bgr = new Uint8Array(size * size * 3);
  const level = (column, row, k) =>  // black outside
    column < 0 || row < 0 || column >= width || row >= height ? 0 : rgb[(row * width + column) * 3 + k];
  for (let v = 0, to = 0; v < size; v++)
    for (let u = 0; u < size; u++) {
      const px = c * u - s * v + x, py = s * u + c * v + y, left = Math.floor(px), top = Math.floor(py);
      const fx = px - left, fy = py - top;
      for (let k = 2; k >= 0; k--, to++)
        bgr[to] = Math.round((1 - fy) * ((1 - fx) * level(left, top, k) + fx * level(left + 1, top, k))
          + fy * ((1 - fx) * level(left, top + 1, k) + fx * level(left + 1, top + 1, k)));
    }
  return { bgr, frame };
}

async function look(session, image, square) {
  const size = session.inputMetadata[0].shape[1];
  const { bgr, frame: { c, s, x, y, scale } } = cropOf(image, square, size);
  const given = { image: new ort.Tensor("uint8", bgr, [1, size, size, 3]) };
  const found = await session.run(given, ["confidence", "crop_from_head", "landmarks"]);
  const camera = Array.from(found.crop_from_head.data), points = found.landmarks.data;
  const frameFromHead = [];
  for (let k = 0; k < 4; k++) {
    frameFromHead[k] = c * camera[k] - s * camera[4 + k] + (k === 3 ? x : 0);
    frameFromHead[4 + k] = s * camera[k] + c * camera[4 + k] + (k === 3 ? y : 0);
    frameFromHead[8 + k] = scale * camera[8 + k];
  }
  const landmarks = [];
  for (let n = 0; n < points.length; n += 3)
    landmarks.push([c * points[n] - s * points[n + 1] + x, s * points[n] + c * points[n + 1] + y]);
  return { confidence: found.confidence.data[0], frameFromHead, landmarks };
}

// image: { width, height, rgb }; box: X1, Y1, X2, Y2 in pixels
export async function faceAt(session, image, box, looks = 2) {
  let square = squareFromBox(...box), face;
  for (let n = looks; n > 0; n--) {
    face = await look(session, image, square);
    square = squareFromCamera(face.frameFromHead);
  }
  return face;
}

export const asText = (face) =>
  [face.confidence.toFixed(4), ...face.landmarks.map(([x, y]) => `${x.toFixed(3)} ${y.toFixed(3)}`)].join("\n");

if (inNode) {
  const [model, photograph, ...numbers] = process.argv.slice(2);
  const session = await ort.InferenceSession.create(model);
  const face = await faceAt(session, await readPpm(photograph), numbers.slice(0, 4).map(Number), Number(numbers[4] ?? 2));
  console.log(asText(face));
}

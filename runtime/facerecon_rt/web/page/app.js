"use strict";
// What is seen now, polled five times a second; the mesh drawn with WebGL. No library, nothing from elsewhere.

const POLL_MS = 200, MESH_MS = 100, HISTORY = 300;
const COLOURS = { capture: "#9aa0a6", detect: "#e8710a", align: "#9334e6", infer: "#1a73e8", post: "#2f9e8f" };
const element = id => document.getElementById(id);
let source = 0, history = [], connected = true;

function showSources(sources) {
  const nav = element("sources");
  while (nav.children.length > sources.length) nav.lastChild.remove();
  sources.forEach((one, index) => {
    if (!nav.children[index]) {
      const button = document.createElement("button");
      button.addEventListener("click", () => select(index));
      nav.append(button);
    }
    const button = nav.children[index];
    button.textContent = `${one.name} · ${one.fps.toFixed(1)} fps`;
    button.classList.toggle("silent", one.silent_s > 2);
    button.setAttribute("aria-pressed", String(index === source));
  });
}

function showInputs(inputs) {
  element("inputs").replaceChildren(...inputs.map(one => {
    const line = document.createElement("li");
    line.className = one.state === "open" ? "open" : "lost";
    line.textContent = `${one.name}: ${one.state} · ${one.frames} frames · ${one.skipped} dropped · ` +
      `losses ${one.losses}` + (one.state === "open" ? "" : ` · ${one.why}`);
    return line;
  }));
}

function select(index) {
  source = index;
  history = [];
  if (!element("live").hidden) showLive();
}

function showLive() {
  element("live").src = `live/${source}.mjpg?t=${Date.now()}`;
}

function showBlendshapes(weights) {
  const box = element("blendshapes"), names = Object.keys(weights);
  if (box.children.length !== names.length) {
    box.replaceChildren(...names.map(name => {
      const row = document.createElement("div"), label = document.createElement("span");
      const meter = document.createElement("meter");
      row.className = "shape";
      label.textContent = name;
      meter.max = 1;
      row.append(label, meter);
      return row;
    }));
  }
  names.forEach((name, index) => { box.children[index].lastChild.value = weights[name]; });
}

function showAttention(state) {
  if (!state) { element("attention").textContent = ""; return; }
  const number = (value, digits) => value === null ? "–" : value.toFixed(digits);
  element("attention").textContent = `eyes ${number(state.eyes_open.left, 2)} ${number(state.eyes_open.right, 2)}  ` +
    `blinks/min ${number(state.blinks_per_min, 0)}  perclos ${number(state.perclos, 2)}  ` +
    `speaking ${number(state.speaking, 1)}  ` + (state.yawning ? "yawning  " : "") +
    (state.off_zone_s === undefined ? "" : (state.zone || `off for ${state.off_zone_s.toFixed(1)} s`) + "  ") +
    (state.drowsiness || "");
}

function showStages(stages) {
  history.push(stages);
  history = history.slice(-HISTORY);
  const canvas = element("stages"), pen = canvas.getContext("2d"), names = Object.keys(stages);
  const sums = history.map(one => names.reduce((sum, name) => sum + one[name], 0));
  const top = Math.max(1, ...sums) * 1.1, width = canvas.width / HISTORY;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  history.forEach((one, column) => {
    let below = canvas.height;
    for (const name of names) {
      const height = one[name] / top * canvas.height;
      pen.fillStyle = COLOURS[name] || "#888";
      pen.fillRect(column * width, below - height, width + 0.5, height);
      below -= height;
    }
  });
  element("legend").textContent = names.map(name => `${name} ${stages[name].toFixed(2)}`).join("   ");
}

function show(state) {
  showSources(state.sources);
  showInputs(state.inputs);
  const one = state.sources[source];
  if (!one) { element("status").textContent = "no source yet"; return; }
  element("live").hidden = !state.pictures;
  if (state.pictures && !element("live").src) showLive();
  const record = one.record, faces = record.faces;
  element("status").textContent =
    `${record.provider}, ${record.precision} · ${one.frames} frames · age ${record.age_ms.toFixed(0)} ms`;
  element("faces").textContent = `${faces.length} ${faces.length === 1 ? "face" : "faces"}`;
  showStages(one.stages_ms);
  // The mesh is that of the same face.
  const largest = one.largest === null ? null : faces[one.largest];
  if (!largest) {
    element("pose").textContent = "";
    showAttention(null);
    showBlendshapes({});
    return;
  }
  const turn = largest.pose.euler_deg, look = largest.gaze && largest.gaze.euler_deg;
  element("pose").textContent = `pitch ${turn.pitch.toFixed(0)}°  yaw ${turn.yaw.toFixed(0)}°  ` +
    `roll ${turn.roll.toFixed(0)}°` + (look ? `  gaze pitch ${look.pitch.toFixed(0)}° yaw ${look.yaw.toFixed(0)}°` : "") +
    `  confidence ${largest.confidence.toFixed(2)}`;
  showAttention(largest.attention);
  showBlendshapes(largest.blendshapes);
}

async function poll() {
  try {
    const state = await (await fetch("api/state")).json();
    if (!connected) { connected = true; if (state.pictures) showLive(); }
    show(state);
  } catch (error) {
    connected = false;
    element("status").textContent = "not connected";
  }
  setTimeout(poll, POLL_MS);
}

// The mesh

const VERTEX = `attribute vec3 position; attribute vec3 normal; uniform vec2 turn; varying vec3 lit;
void main() {
  float a = turn.x, b = turn.y;
  mat3 yaw = mat3(cos(a), 0., -sin(a), 0., 1., 0., sin(a), 0., cos(a));
  mat3 pitch = mat3(1., 0., 0., 0., cos(b), sin(b), 0., -sin(b), cos(b));
  vec3 p = pitch * yaw * (position - vec3(0., -33., 0.));
  lit = pitch * yaw * normal;
  gl_Position = vec4(p.xy / 122., -p.z / 400., 1.);
}`;
const FRAGMENT = `precision mediump float; varying vec3 lit;
void main() {
  vec3 n = normalize(lit);
  float key = max(dot(n, normalize(vec3(-.5, .6, .7))), 0.), rim = pow(1. - max(n.z, 0.), 2.);
  gl_FragColor = vec4(vec3(.80, .76, .72) * (.22 + .78 * key) + .15 * rim, 1.);
}`;

function normals(vertices, triangles) {
  const sums = new Float32Array(vertices.length);
  for (let t = 0; t < triangles.length; t += 3) {
    const [a, b, c] = [3 * triangles[t], 3 * triangles[t + 1], 3 * triangles[t + 2]];
    const u = [0, 1, 2].map(k => vertices[b + k] - vertices[a + k]), v = [0, 1, 2].map(k => vertices[c + k] - vertices[a + k]);
    const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) sums[corner + k] += n[k];
  }
  return sums;
}

async function startMesh() {
  const canvas = element("mesh"), gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) { element("pose").textContent = "this browser has no WebGL"; return; }
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.enable(gl.DEPTH_TEST);
  gl.getExtension("OES_element_index_uint");
  const triangles = new Uint32Array(await (await fetch("api/triangles")).arrayBuffer());
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, triangles, gl.STATIC_DRAW);
  const buffers = ["position", "normal"].map(name => ({ place: gl.getAttribLocation(program, name), buffer: gl.createBuffer() }));
  let drag = null, turned = [0, 0], vertices = null;
  canvas.addEventListener("pointerdown", event => { drag = [event.clientX, event.clientY, ...turned]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", event => {
    if (drag) turned = [drag[2] + (event.clientX - drag[0]) / 120, drag[3] + (event.clientY - drag[1]) / 120];
  });
  canvas.addEventListener("pointerup", () => { drag = null; });

  async function fetchVertices() {
    try {
      const answer = await fetch(`api/vertices/${source}`);
      if (answer.status === 200) {
        vertices = new Float32Array(await answer.arrayBuffer());
        [vertices, normals(vertices, triangles)].forEach((data, index) => {
          gl.bindBuffer(gl.ARRAY_BUFFER, buffers[index].buffer);
          gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
        });
      } else {
        vertices = null;  // no face
      }
    } catch (error) { /* the status line says it */ }
    setTimeout(fetchVertices, MESH_MS);
  }

  function draw(now) {
    const sway = drag ? 0 : 0.5 * Math.sin(now / 1800);
    gl.clearColor(0.13, 0.15, 0.17, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    if (vertices) {
      for (const { place, buffer } of buffers) {
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        gl.enableVertexAttribArray(place);
        gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
      }
      gl.uniform2f(gl.getUniformLocation(program, "turn"), turned[0] + sway, turned[1]);
      gl.drawElements(gl.TRIANGLES, triangles.length, gl.UNSIGNED_INT, 0);
    }
    requestAnimationFrame(draw);
  }
  fetchVertices();
  requestAnimationFrame(draw);
}

element("live").addEventListener("error", () => setTimeout(() => { if (!element("live").hidden) showLive(); }, 1000));
poll();
startMesh();

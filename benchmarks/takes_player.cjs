// A take -> pictures of it by three.js in headless Chromium. benchmarks/takes.py calls it with its options as JSON.
const fs = require('fs'), http = require('http'), path = require('path');
const options = JSON.parse(process.argv[2]);
const modules = path.join(options.npm, 'node_modules');
const puppeteer = require(path.join(modules, 'puppeteer-core'));
const [width, height] = options.size;

const page = `<!doctype html><style>body{margin:0;background:#000}</style>
<script type="importmap">{"imports":{"three":"/m/three/build/three.module.js","three/addons/":"/m/three/examples/jsm/"}}</script>
<script type="module">
import * as THREE from 'three';
import { GLTFLoader } from 'three/addons/loaders/GLTFLoader.js';
const renderer = new THREE.WebGLRenderer({ antialias: true, preserveDrawingBuffer: true });
renderer.setSize(${width}, ${height});
document.body.append(renderer.domElement);
const scene = new THREE.Scene();
scene.add(new THREE.HemisphereLight(0xffffff, 0x887766, 1.5));
const sun = new THREE.DirectionalLight(0xffffff, 2.5);
sun.position.set(-0.5, 0.55, 0.75);
scene.add(sun);
const aspect = ${width / height};
const fov = 2 * Math.atan(Math.tan(${options.fov} * Math.PI / 360) / aspect) * 180 / Math.PI;
const camera = new THREE.PerspectiveCamera(fov, aspect, 0.01, 10);
const gltf = await new GLTFLoader().loadAsync('/take.glb');
scene.add(gltf.scene);
const mixer = new THREE.AnimationMixer(gltf.scene);
mixer.clipAction(gltf.animations[0]).play();
const eyes = [];
gltf.scene.traverse(o => { if (/eye$/.test(o.name)) eyes.push(o); });
window.show = (seconds, directions) => {
  mixer.setTime(seconds);
  scene.overrideMaterial = directions ? new THREE.MeshNormalMaterial() : null;
  eyes.forEach(o => { o.visible = !directions; });
  renderer.render(scene, camera);
};
window.ready = true;
</script>`;

const server = http.createServer((request, response) => {
  const url = request.url.split('?')[0];
  if (url === '/') { response.setHeader('Content-Type', 'text/html'); return response.end(page); }
  const file = url === '/take.glb' ? options.take : path.join(modules, path.normalize(url.replace(/^\/m\//, '/')));
  if (url !== '/take.glb' && !url.startsWith('/m/')) { response.statusCode = 404; return response.end(); }
  response.setHeader('Content-Type', file.endsWith('.js') ? 'text/javascript' : 'model/gltf-binary');
  fs.createReadStream(file).on('error', () => { response.statusCode = 404; response.end(); }).pipe(response);
});

server.listen(0, '127.0.0.1', async () => {
  const browser = await puppeteer.launch({
    executablePath: options.chromium,
    args: ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'],
    defaultViewport: { width, height },
  });
  try {
    const tab = await browser.newPage();
    tab.on('pageerror', error => { console.error(error.message); process.exitCode = 1; });
    await tab.goto(`http://127.0.0.1:${server.address().port}/`);
    await tab.waitForFunction('window.ready', { timeout: 120000 });
    for (const [number, seconds] of options.seconds.entries()) {
      for (const [letter, directions] of [['t', false], ['n', true]]) {
        await tab.evaluate((s, d) => window.show(s, d), seconds, directions);
        await tab.screenshot({ path: path.join(options.to, `${letter}${number}.png`) });
      }
    }
  } finally {
    await browser.close();
    server.close();
  }
});

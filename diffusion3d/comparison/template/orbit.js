// A camera around the origin (z up, azimuth 0 at +x, as in the package) and what turns it.

const DEGREES = Math.PI / 180;

class Orbit {
  constructor(canvas, given, changed) {
    this.changed = changed;
    this.given = given;
    const fingers = new Map();
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
    };
    canvas.onpointerup = canvas.onpointercancel = (event) => fingers.delete(event.pointerId);
    canvas.onpointermove = (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const spread = () => {
        const [[x, y], [u, v]] = [...fingers.values()];
        return Math.hypot(x - u, y - v);
      };
      const apart = fingers.size === 2 && spread();
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (apart) this.move(0, 0, apart / spread());
      else this.move((before[0] - event.clientX) * 0.5, (event.clientY - before[1]) * 0.5);
    };
    canvas.onwheel = (event) => {
      event.preventDefault();
      this.move(0, 0, Math.exp(event.deltaY * 0.001));
    };
    canvas.onkeydown = (event) => {
      const moves = { ArrowLeft: [-5, 0], ArrowRight: [5, 0], ArrowUp: [0, 5], ArrowDown: [0, -5], "+": [0, 0, 0.9], "=": [0, 0, 0.9], "-": [0, 0, 1 / 0.9] };
      if (event.key === "0") this.reset();
      else if (event.key in moves) this.move(...moves[event.key]);
      else return;
      event.preventDefault();
    };
  }

  /** As a run's turntable begins. */
  reset() {
    const { given } = this;
    this.azimuth = 0;
    this.elevation = given.turntable_elevation ?? 15;
    this.distance = given.distance ?? 3;
    this.fov = given.fov ?? 40;
    this.changed();
  }

  move(azimuth, elevation, farther = 1) {
    this.azimuth += azimuth;
    this.elevation = Math.min(Math.max(this.elevation + elevation, -89), 89);
    this.distance = Math.min(Math.max(this.distance * farther, 0.2), 50);
    this.changed();
  }

  /** Where it is, and its axes right, down, forward in the world. */
  pose() {
    const [a, e, d] = [this.azimuth * DEGREES, this.elevation * DEGREES, this.distance];
    const forward = [-Math.cos(e) * Math.cos(a), -Math.cos(e) * Math.sin(a), -Math.sin(e)];
    const right = [-Math.sin(a), Math.cos(a), 0];
    const down = [forward[1] * right[2] - forward[2] * right[1], forward[2] * right[0] - forward[0] * right[2], forward[0] * right[1] - forward[1] * right[0]];
    return { position: forward.map((x) => -d * x), right, down, forward };
  }

  /** World to camera, column by column, for WebGL. */
  view() {
    const { position, right, down, forward } = this.pose();
    const axes = [right, down, forward];
    const at = axes.map((axis) => -axis.reduce((sum, x, i) => sum + x * position[i], 0));
    return new Float32Array([...[0, 1, 2].flatMap((i) => [right[i], down[i], forward[i], 0]), ...at, 1]);
  }
}

/** A program of WebGL 2, and its uniforms. */
function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, `#version 300 es\nprecision highp float;\nprecision highp int;\n${source}`);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made) || "WebGL 2 does not work here");
  const at = (name) => gl.getUniformLocation(made, name);
  return { made, at };
}

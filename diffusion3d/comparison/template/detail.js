// One run: its scene in 3D where there is one, all that differs, all metrics.

const detail = get("detail");
let opened = null;

/** What draws: one canvas, made anew with every run, so that WebGL forgets the last. */
function stage(run) {
  const canvas = get("view").cloneNode();
  get("view").getContext?.("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
  get("view").replaceWith(canvas);
  canvas.hidden = !run.scene;
  return canvas;
}

async function drawScene(run, canvas) {
  const gl = canvas.getContext("webgl2", { antialias: true, premultipliedAlpha: true });
  if (!gl) throw new Error("This browser has no WebGL 2, which the scene needs.");
  const bytes = decode(await load(run.scene.file));
  if (opened !== run) return;
  const scene = run.scene.kind === "splat" ? new Splats(gl, bytes) : await Mesh.read(gl, bytes);
  if (opened !== run) return;
  let asked = false;
  const draw = () => {
    asked = false;
    if (opened !== run) return;
    const ratio = Math.min(devicePixelRatio, 2);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.max(1, Math.round(side * ratio)));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    scene.draw(camera, width, height);
    canvas.dataset.drawn = String(Number(canvas.dataset.drawn ?? 0) + 1);
  };
  const ask = () => {
    if (!asked) requestAnimationFrame(draw);
    asked = true;
  };
  const camera = new Orbit(canvas, run.scene.camera, ask);
  camera.reset();
  new ResizeObserver(ask).observe(canvas);
}

function openRun(run) {
  opened = run;
  get("detail-title").textContent = run.prompt || run.name;
  const canvas = stage(run);
  for (const old of get("stage").querySelectorAll("video, img, span")) {
    clock.remove(old);
    old.remove();
  }
  if (!run.scene) get("stage").prepend(...picture(run));
  get("note").textContent = run.scene ? "Loading the scene …" : "";
  if (run.scene) {
    const { kind, count } = run.scene;
    const words = kind === "splat" ? `${count.toLocaleString("en")} splats` : "mesh";
    drawScene(run, canvas).then(
      () => opened === run && (get("note").textContent = `${words}. Drag or arrow keys turn, wheel or + and − zoom, 0 resets.`),
      (error) => (get("note").textContent = error.message),
    );
  }
  get("facts").replaceChildren(
    make("div", { className: "name", textContent: run.name }),
    ...(run.status === "finished" && !run.error ? [] : [make("p", { className: "error", textContent: `${run.status}${run.error && ": "}${run.error}` })]),
    ...(Object.keys(run.config).length ? [make("h3", { textContent: "What differs" }), list(run.config)] : []),
    ...(Object.keys(run.metrics).length ? [make("h3", { textContent: "Metrics" }), list(run.metrics)] : []),
  );
  if (!detail.open) detail.showModal();
}

detail.onclose = () => {
  const run = opened;
  opened = null;
  for (const video of get("stage").querySelectorAll("video")) clock.remove(video);
  history.replaceState(null, "", "#");
  run?.card.focus();
};

// One card a run: its video, what differs, how it ended.

const KINDS = { rgb: "RGB", depth: "Depth", normal: "Normals" };
const ON_CARD = 6; // keys
const typed = DATA.keys.filter((key) => key.typed).map((key) => key.name);
const keysOnCard = (typed.length ? typed : DATA.keys.map((key) => key.name)).filter((key) => key !== "prompt").slice(0, ON_CARD);
let kind = Object.keys(KINDS).find((name) => DATA.runs.some((run) => run.videos[name])) ?? "rgb";

const hue = (run) => `oklch(0.64 0.16 ${(run.number * 137.5) % 360})`;

/** Terms and their values, as <dl>. */
function list(values) {
  const pair = ([name, value]) => make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: show(value) }));
  return make("dl", {}, ...Object.entries(values).map(pair));
}

function makeCard(run) {
  run.media = make("div", { className: "media" });
  run.figure = make("div");
  const text = make("div", { className: "text" }, make("span", { className: "swatch" }), make("strong", { textContent: run.prompt || run.name }));
  text.firstChild.style.background = hue(run);
  text.lastChild.prepend(text.firstChild);
  if (run.prompt) text.append(make("div", { className: "name", textContent: run.name }));
  text.append(list(Object.fromEntries(keysOnCard.filter((key) => key in run.config).map((key) => [key, run.config[key]]))), run.figure);
  if (run.status !== "finished") text.append(make("div", { className: "error", textContent: `${run.status}: ${run.error}` }));
  else if (run.error) text.append(make("div", { className: "error", textContent: run.error }));
  run.card = make("a", { className: "card", href: `#run-${run.number}`, tabIndex: -1 }, run.media, text);
  run.card.run = run;
  seen.observe(run.card);
}

/** Show a run's video as long as its card is near the window: browsers play a few dozen at once, not hundreds. */
function fill(run, near) {
  const video = run.media.querySelector("video");
  if (video) {
    clock.remove(video);
    video.removeAttribute("src");
    video.load();
  }
  run.media.replaceChildren();
  run.near = near;
  if (!near) return;
  run.media.append(...picture(run));
}

/** What a run can show: a video on the clock or a picture, and a word where that is missing. */
function picture(run) {
  const name = run.videos[kind];
  if (name) {
    const video = make("video", { muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true, src: address(name) });
    video.onerror = () => video.replaceWith(make("span", { textContent: "This video cannot be played." }));
    clock.add(video);
    return [video];
  }
  if (run.picture && kind === "rgb") return [make("img", { alt: "", src: address(run.picture) })];
  return [make("span", { textContent: Object.keys(run.videos).length ? `no ${KINDS[kind].toLowerCase()}` : `${run.status}, no video` })];
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (Boolean(target.run.near) !== isIntersecting) fill(target.run, isIntersecting);
  },
  { rootMargin: "120px" },
);

function setKind(name) {
  kind = name;
  for (const run of DATA.runs) if (run.near) fill(run, true);
}

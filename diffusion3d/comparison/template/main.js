// Ties the parts to the page's controls and the keyboard.

DATA.runs.forEach((run, number) => {
  run.number = number;
  makeCard(run);
});
let shown = DATA.runs;

/** Fill a <select> with names, after what stands for none. */
function options(id, names, none) {
  const choices = names.map((name) => make("option", { value: name, textContent: name }));
  get(id).append(...(none === undefined ? [] : [make("option", { value: "", textContent: none })]), ...choices);
}

function update() {
  shown = sorted(passing(), get("sort").value, get("descending").checked);
  const metric = get("sort").value.startsWith("metric ") ? get("sort").value.slice(7) : DATA.metrics.includes("loss") ? "loss" : DATA.metrics[0];
  for (const run of shown) run.figure.replaceChildren(...(metric in run.metrics ? [list({ [metric]: run.metrics[metric] })] : []));
  const focused = document.activeElement?.closest?.(".card");
  get("grid").replaceChildren(...arrange(shown, get("rows").value, get("columns").value));
  get("nothing").hidden = shown.length > 0;
  get("count").textContent = shown.length === DATA.runs.length ? `${shown.length} runs` : `${shown.length} of ${DATA.runs.length} runs`;
  const first = document.querySelector("#grid .card");
  for (const run of DATA.runs) run.card.tabIndex = -1;
  if (first) first.tabIndex = 0;
  if (focused?.isConnected) focused.focus();
  drawCurves(shown);
}

function openFromAddress() {
  const run = DATA.runs[Number(location.hash.replace("#run-", "") || "x")];
  if (run) openRun(run);
  else if (detail.open) detail.close();
}

/** The run before or after the open one, among those shown. */
function step(by) {
  const run = shown[(shown.indexOf(opened) + by + shown.length) % shown.length];
  if (run) location.replace(`#run-${run.number}`);
}

const names = [...FIELDS.keys()];
const keys = names.filter((name) => !name.startsWith("metric "));
options("sort", names);
options("add-filter", names, "choose …");
options("rows", keys, "none");
options("columns", keys, "none");
options("figure", Object.keys(DATA.curves));
[get("rows").value, get("columns").value] = arrangement();
if ("loss" in DATA.curves) get("figure").value = "loss";
get("curves").hidden = !Object.keys(DATA.curves).length;

const kinds = Object.keys(KINDS).filter((name) => DATA.runs.some((run) => run.videos[name]));
for (const name of kinds) {
  const radio = make("input", { type: "radio", name: "kind", value: name, checked: name === kind });
  radio.onchange = () => setKind(name);
  get("kinds").append(make("label", {}, radio, KINDS[name]));
}
get("kinds").hidden = kinds.length < 2;

for (const id of ["sort", "descending", "rows", "columns"]) get(id).onchange = update;
get("add-filter").onchange = (event) => {
  addFilter(event.target.value, update);
  event.target.value = "";
};
get("figure").onchange = get("log").onchange = get("curves").ontoggle = () => drawCurves(shown);
let resized;
window.onresize = () => {
  clearTimeout(resized);
  resized = setTimeout(() => drawCurves(shown), 150);
};
matchMedia("(prefers-color-scheme: dark)").onchange = () => drawCurves(shown);

get("previous").onclick = () => step(-1);
get("next").onclick = () => step(1);
get("close").onclick = () => detail.close();
window.onhashchange = openFromAddress;

get("play").onclick = () => (clock.playing ? clock.pause() : clock.play());
get("seek").oninput = (event) => {
  clock.playing = false;
  clock.seek(Number(event.target.value));
};
clock.onchange = () => {
  get("play").textContent = clock.playing ? "Pause" : "Play";
  if (document.activeElement !== get("seek") || clock.playing) get("seek").value = clock.phase;
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || detail.open) return;
  const card = event.target.closest?.(".card");
  if (event.key === " " && (card || event.target === document.body)) {
    event.preventDefault();
    get("play").click();
  } else if (card && (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End")) {
    event.preventDefault();
    neighbour(card, event.key)?.focus();
  }
});
get("grid").addEventListener("focusin", (event) => {
  const card = event.target.closest(".card");
  if (!card) return;
  for (const other of get("grid").querySelectorAll('.card[tabindex="0"]')) other.tabIndex = -1;
  card.tabIndex = 0;
});

update();
openFromAddress();
const still = matchMedia("(prefers-reduced-motion: reduce)");
still.onchange = () => still.matches && clock.pause();
if (still.matches) clock.pause();
else clock.play();

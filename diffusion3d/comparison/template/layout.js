// Where the cards are: one after the other, or in a table of rows by one key and columns by another.

const VARIANTS = 12; // columns that a table may have by itself
const FULL = 0.75; // and the share of its cells that must hold a run

/** How to get what runs are sorted, filtered and arranged by: {name: run -> value}. */
const FIELDS = new Map([
  ["name", (run) => run.name],
  ["status", (run) => run.status],
  ...DATA.keys.map(({ name }) => [name, (run) => run.config[name]]),
  ...DATA.metrics.map((name) => [`metric ${name}`, (run) => run.metrics[name]]),
]);

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number" || typeof b === "number") return typeof a === "number" ? -1 : 1;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

/** Runs in the order of a field; those without a value, or with one that is no number among numbers, come last either way. */
function sorted(runs, name, descending) {
  const of = FIELDS.get(name);
  const numbers = runs.some((run) => typeof of(run) === "number");
  const known = (run) => of(run) !== undefined && of(run) !== null && (!numbers || typeof of(run) === "number");
  const sign = descending ? -1 : 1;
  return [...runs.filter(known).sort((a, b) => sign * compare(of(a), of(b)) || a.number - b.number), ...runs.filter((run) => !known(run))];
}

const label = (name, value) => (value === undefined ? `no ${name}` : show(value));
const distinct = (runs, name) => [...new Set(runs.map(FIELDS.get(name)))].sort(compare);

/** [rows, columns] to begin with: prompt × variant, where these fill a table. */
function arrangement() {
  if (!DATA.keys.some((key) => key.name === "prompt")) return ["", ""];
  const rows = distinct(DATA.runs, "prompt").length;
  for (const { name } of DATA.keys.filter((key) => key.typed && key.name !== "prompt")) {
    const columns = distinct(DATA.runs, name).length;
    const cells = new Set(DATA.runs.map((run) => JSON.stringify([run.config.prompt, run.config[name]]))).size;
    if (columns <= VARIANTS && rows < DATA.runs.length && cells >= FULL * rows * columns) return ["prompt", name];
  }
  return ["", ""];
}

function cards(runs) {
  return make("div", { className: "cards" }, ...runs.map((run) => run.card));
}

function table(runs, rows, columns) {
  const across = distinct(runs, columns);
  const head = make("tr", {}, make("td"), ...across.map((value) => make("th", { scope: "col", textContent: `${columns} ${label(columns, value)}` })));
  const body = (rows ? distinct(runs, rows) : [""]).map((value) => {
    const own = rows ? runs.filter((run) => FIELDS.get(rows)(run) === value) : runs;
    const cells = across.map((variant) => make("td", {}, ...own.filter((run) => FIELDS.get(columns)(run) === variant).map((run) => run.card)));
    return make("tr", {}, make("th", { scope: "row", textContent: rows && label(rows, value) }), ...cells);
  });
  const whole = make("div", { className: "matrix" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  whole.style.setProperty("--columns", across.length);
  return whole;
}

/** The grid of some runs, in their order. */
function arrange(runs, rows, columns) {
  if (columns) return [table(runs, rows, columns)];
  if (!rows) return [cards(runs)];
  return distinct(runs, rows).flatMap((value) => [
    make("h2", { className: "group", textContent: `${rows} ${label(rows, value)}` }),
    cards(runs.filter((run) => FIELDS.get(rows)(run) === value)),
  ]);
}

/** The card that an arrow key leads to, by where cards are on the screen. */
function neighbour(card, key) {
  const from = card.getBoundingClientRect();
  const horizontal = key === "ArrowLeft" || key === "ArrowRight";
  const sign = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
  const all = [...document.querySelectorAll("#grid .card")];
  if (key === "Home") return all[0];
  if (key === "End") return all.at(-1);
  if (horizontal && !card.closest(".matrix")) return all[all.indexOf(card) + sign];
  let best, least = Infinity;
  for (const other of all) {
    const to = other.getBoundingClientRect();
    const [x, y] = [to.left - from.left, to.top - from.top];
    const [ahead, aside] = horizontal ? [sign * x, Math.abs(y)] : [sign * y, Math.abs(x)];
    if (ahead > from.width / 4 && ahead + 3 * aside < least) [best, least] = [other, ahead + 3 * aside];
  }
  return best;
}

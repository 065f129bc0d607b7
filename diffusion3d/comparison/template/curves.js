// The course of one figure in all runs that pass the filters, drawn by uPlot.

const HEIGHT = 300;
const courses = new Map(); // figure -> promise of {steps: [[...]], runs: {number: [index of steps, values]}}
let plot = null;
let drawing = null;

function course(figure) {
  if (!courses.has(figure)) courses.set(figure, load(DATA.curves[figure]));
  return courses.get(figure);
}

async function drawCurves(runs) {
  if (!get("curves").open || !get("figure").value) return;
  const [figure, logarithmic] = [get("figure").value, get("log").checked];
  const token = (drawing = {});
  let content;
  try {
    content = await course(figure);
  } catch (error) {
    get("nearest").textContent = error.message;
    return;
  }
  if (token !== drawing) return;
  plot?.destroy();
  plot = null;
  const drawn = runs.filter((run) => content.runs[run.number]);
  if (!drawn.length) return;
  const data = uPlot.join(
    drawn.map((run) => {
      const [steps, values] = content.runs[run.number];
      return [content.steps[steps], logarithmic ? values.map((value) => (value > 0 ? value : null)) : values];
    }),
  );
  const style = getComputedStyle(document.body);
  const ink = style.getPropertyValue("--soft");
  const grid = { stroke: style.getPropertyValue("--line"), width: 1 };
  const options = {
    width: get("plot").clientWidth - 16,
    height: HEIGHT,
    legend: { show: false },
    cursor: { focus: { prox: 20 }, y: false },
    focus: { alpha: 0.2 },
    scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1 } },
    axes: [
      { stroke: ink, grid, ticks: grid, label: "step" },
      { stroke: ink, grid, ticks: grid, size: 70, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : show(tick))) },
    ],
    series: [{}, ...drawn.map((run) => ({ label: run.name, stroke: hue(run), width: 1.5, spanGaps: true, points: { show: drawn.length && data[0].length < 3 } }))],
    hooks: {
      setSeries: [
        (_, index) => {
          const run = index === null ? null : drawn[index - 1];
          get("nearest").textContent = run ? describe(run) : "Point at a curve to see whose it is.";
        },
      ],
    },
  };
  plot = new uPlot(options, data, get("plot"));
}

const describe = (run) => [run.prompt, run.name, ...keysOnCard.map((key) => `${key} ${label(key, run.config[key])}`)].filter(Boolean).join(" · ");

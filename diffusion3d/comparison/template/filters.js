// Filters: any value of a key that has few, a text in one that has many, a range of numbers.

const FEW = 12;
const filters = new Set(); // of (run) -> whether it passes

function addFilter(name, changed) {
  const of = FIELDS.get(name);
  const values = distinct(DATA.runs, name);
  const box = make("fieldset", {}, make("legend", { textContent: name }));
  let passes;
  if (values.length <= FEW && name !== "name" && !name.startsWith("metric ")) {
    const chosen = new Set(values);
    passes = (run) => chosen.has(of(run));
    for (const value of values) {
      const tick = make("input", { type: "checkbox", checked: true });
      tick.oninput = () => (tick.checked ? chosen.add(value) : chosen.delete(value));
      box.append(make("label", {}, tick, label(name, value)));
    }
  } else if (values.some((value) => typeof value === "number")) {
    const [low, high] = ["at least", "at most"].map((word) => make("input", { type: "number", step: "any", ariaLabel: `${name} ${word}`, placeholder: word }));
    passes = (run) => (low.value === "" || of(run) >= Number(low.value)) && (high.value === "" || of(run) <= Number(high.value));
    box.append(low, high);
  } else {
    const text = make("input", { type: "text", ariaLabel: `${name} contains`, placeholder: "contains" });
    passes = (run) => String(of(run) ?? "").toLowerCase().includes(text.value.toLowerCase());
    box.append(text);
  }
  const remove = make("button", { type: "button", textContent: "×", ariaLabel: `Remove the filter of ${name}` });
  remove.onclick = () => {
    filters.delete(passes);
    box.remove();
    get("add-filter").focus();
    changed();
  };
  box.oninput = changed;
  box.append(remove);
  filters.add(passes);
  get("filters").append(box);
  box.querySelector("input").focus();
}

const passing = () => DATA.runs.filter((run) => [...filters].every((passes) => passes(run)));

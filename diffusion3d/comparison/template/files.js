// The page's data, and the files that are loaded when they are asked for.

const DATA = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
const awaited = new Map();
const blobs = new Map();

/** An element with properties, attributes (data- and aria-, role, scope) and children. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const inlined = (name) => document.querySelector(`script[data-file="${name}"]`);

function decode(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Called by the scripts in media/. */
window.received = (name, value) => awaited.get(name)?.(value);

/** A promise of what a file in media/ holds, an object or base64: a script, for fetch() does not work on pages from disk. */
function load(name) {
  const own = inlined(name);
  if (own) return Promise.resolve(JSON.parse(own.textContent));
  return new Promise((resolve, reject) => {
    awaited.set(name, resolve);
    const script = make("script", { src: `media/${name}` });
    script.onload = () => script.remove();
    script.onerror = () => reject(new Error(`media/${name} cannot be loaded`));
    document.head.append(script);
  });
}

/** The address of a video or a picture. */
function address(name) {
  const own = inlined(name);
  if (!own) return `media/${name}`;
  if (!blobs.has(name)) {
    const type = name.endsWith(".mp4") ? "video/mp4" : "image/png";
    blobs.set(name, URL.createObjectURL(new Blob([decode(JSON.parse(own.textContent))], { type })));
  }
  return blobs.get(name);
}

/** A value as text: numbers with four digits. */
function show(value) {
  if (typeof value !== "number") return value === undefined ? "" : String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  return String(Number(value.toPrecision(4)));
}

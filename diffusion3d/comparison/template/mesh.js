// Meshes of a GLB (glTF 2.0, y up): triangles with a texture, colours per vertex, or one colour and a light at the camera.

const MESH_VERTEX = `
uniform mat4 view, model;
uniform vec2 scale;
in vec3 position;
in vec2 uv;
in vec4 tint;
out vec2 coordinate;
out vec4 vertex_tint;
out vec3 seen;
void main() {
  seen = (view * vec4((model * vec4(position, 1.0)).zxy, 1.0)).xyz; // our axes are z, x, y of glTF
  coordinate = uv;
  vertex_tint = tint;
  float near = 0.05, far = 200.0;
  gl_Position = vec4(seen.x * scale.x, -seen.y * scale.y, ((far + near) * seen.z - 2.0 * far * near) / (far - near), seen.z);
}`;

const MESH_FRAGMENT = `
uniform sampler2D picture;
uniform vec4 base;
uniform bool lit;
in vec2 coordinate;
in vec4 vertex_tint;
in vec3 seen;
out vec4 result;
void main() {
  vec4 colour = texture(picture, coordinate) * base * vertex_tint;
  vec3 normal = normalize(cross(dFdx(seen), dFdy(seen)));
  if (lit) colour.rgb *= 0.25 + 0.75 * abs(dot(normal, normalize(seen)));
  result = vec4(colour.rgb, 1.0);
}`;

const ARRAYS = { 5120: Int8Array, 5121: Uint8Array, 5122: Int16Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array };
const COMPONENTS = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };

/** The JSON and the binary part of a GLB. */
function readGlb(bytes) {
  const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (words.getUint32(0, true) !== 0x46546c67) throw new Error("this is no GLB");
  const length = words.getUint32(12, true);
  const json = JSON.parse(new TextDecoder().decode(bytes.subarray(20, 20 + length)));
  if (json.extensionsRequired?.length) throw new Error(`this GLB needs ${json.extensionsRequired.join(", ")}`);
  return { json, binary: bytes.slice(28 + length) };
}

/** The values of an accessor, packed. */
function accessor({ json, binary }, index) {
  const { bufferView, byteOffset = 0, componentType, count, type } = json.accessors[index];
  const { byteOffset: start = 0, byteStride } = json.bufferViews[bufferView];
  const Kind = ARRAYS[componentType];
  const width = COMPONENTS[type] * Kind.BYTES_PER_ELEMENT;
  const packed = new Uint8Array(count * width);
  for (let i = 0; i < count; i++) {
    const from = start + byteOffset + i * (byteStride ?? width);
    packed.set(binary.subarray(from, from + width), i * width);
  }
  return { values: new Kind(packed.buffer), componentType, components: COMPONENTS[type], count };
}

const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];

function product(a, b) {
  return a.map((_, i) => [0, 1, 2, 3].reduce((sum, k) => sum + a[4 * k + (i % 4)] * b[4 * (i >> 2) + k], 0));
}

function placed({ matrix, translation: t = [0, 0, 0], rotation: [x, y, z, w] = [0, 0, 0, 1], scale: s = [1, 1, 1] }) {
  if (matrix) return matrix;
  return [
    s[0] * (1 - 2 * (y * y + z * z)), s[0] * 2 * (x * y + w * z), s[0] * 2 * (x * z - w * y), 0,
    s[1] * 2 * (x * y - w * z), s[1] * (1 - 2 * (x * x + z * z)), s[1] * 2 * (y * z + w * x), 0,
    s[2] * 2 * (x * z + w * y), s[2] * 2 * (y * z - w * x), s[2] * (1 - 2 * (x * x + y * y)), 0,
    ...t, 1,
  ];
}

class Mesh {
  /** A promise of the meshes of a GLB. */
  static async read(gl, bytes) {
    const mesh = new Mesh();
    mesh.gl = gl;
    Object.assign(mesh, program(gl, MESH_VERTEX, MESH_FRAGMENT));
    const glb = readGlb(bytes);
    const views = glb.json.bufferViews ?? [];
    const bitmaps = (glb.json.images ?? []).map(({ bufferView, mimeType }) => {
      const { byteOffset = 0, byteLength } = views[bufferView];
      return createImageBitmap(new Blob([glb.binary.subarray(byteOffset, byteOffset + byteLength)], { type: mimeType }), { premultiplyAlpha: "none" });
    });
    mesh.white = mesh.texture(null);
    mesh.pictures = (await Promise.all(bitmaps)).map((bitmap) => mesh.texture(bitmap));
    mesh.parts = [];
    const visit = (number, parent) => {
      const node = glb.json.nodes[number];
      const model = product(parent, placed(node));
      for (const primitive of glb.json.meshes?.[node.mesh]?.primitives ?? []) mesh.add(glb, primitive, model);
      for (const child of node.children ?? []) visit(child, model);
    };
    for (const root of glb.json.scenes[glb.json.scene ?? 0].nodes) visit(root, IDENTITY);
    return mesh;
  }

  add(glb, { attributes, indices, material, mode = 4 }, model) {
    if (mode !== 4) return;
    const gl = this.gl;
    const { baseColorTexture, baseColorFactor = [1, 1, 1, 1] } = glb.json.materials?.[material]?.pbrMetallicRoughness ?? {};
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    for (const [name, source] of [["position", attributes.POSITION], ["uv", attributes.TEXCOORD_0], ["tint", attributes.COLOR_0]]) {
      const location = gl.getAttribLocation(this.made, name);
      if (source === undefined) {
        gl.vertexAttrib4f(location, 1, 1, 1, 1);
        continue;
      }
      const { values, componentType, components } = accessor(glb, source);
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, components, componentType, componentType !== gl.FLOAT, 0, 0);
    }
    const corners = indices === undefined ? null : accessor(glb, indices);
    if (corners) {
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners.values, gl.STATIC_DRAW);
    }
    gl.bindVertexArray(null);
    const picture = baseColorTexture ? this.pictures[glb.json.textures[baseColorTexture.index].source] : this.white;
    const lit = !baseColorTexture && attributes.COLOR_0 === undefined;
    const count = (corners ?? glb.json.accessors[attributes.POSITION]).count;
    this.parts.push({ array, picture, lit, base: baseColorFactor, model, count, type: corners?.componentType });
  }

  texture(bitmap) {
    const gl = this.gl;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    if (bitmap) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array([255, 255, 255, 255]));
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    return texture;
  }

  draw(camera, width, height) {
    const gl = this.gl;
    gl.useProgram(this.made);
    gl.enable(gl.DEPTH_TEST);
    gl.disable(gl.BLEND);
    const focal = 1 / Math.tan((camera.fov * DEGREES) / 2);
    gl.uniformMatrix4fv(this.at("view"), false, camera.view());
    gl.uniform2f(this.at("scale"), (focal * height) / width, focal);
    for (const { array, picture, lit, base, model, count, type } of this.parts) {
      gl.bindVertexArray(array);
      gl.bindTexture(gl.TEXTURE_2D, picture);
      gl.uniformMatrix4fv(this.at("model"), false, model);
      gl.uniform4fv(this.at("base"), base);
      gl.uniform1i(this.at("lit"), lit ? 1 : 0);
      if (type) gl.drawElements(gl.TRIANGLES, count, type, 0);
      else gl.drawArrays(gl.TRIANGLES, 0, count);
    }
  }
}

// Gaussians drawn as in Kerbl et al. 2023: sorted by depth, projected to ellipses, blended from back to front.

const BYTES = 32; // of a splat: 3 floats of its centre, 3 of its standard deviations, 4 bytes of colour, 4 of rotation
const ROW = 1024; // splats in a row of the texture

const SPLAT_VERTEX = `
uniform highp usampler2D splats;
uniform mat4 view;
uniform vec2 size;
uniform float focal;
in uint index;
out vec2 offset;
out vec4 colour;

mat3 turned(vec4 q) {
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

vec4 bytes(uint word) {
  return vec4(word & 255u, (word >> 8) & 255u, (word >> 16) & 255u, word >> 24);
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  ivec2 texel = ivec2(2u * (index % ${ROW}u), index / ${ROW}u);
  uvec4 first = texelFetch(splats, texel, 0), second = texelFetch(splats, texel + ivec2(1, 0), 0);
  vec3 p = (view * vec4(uintBitsToFloat(first.xyz), 1.0)).xyz;
  if (p.z < 0.1) return;
  vec3 scales = uintBitsToFloat(uvec3(first.w, second.xy));
  mat3 axes = mat3(view) * turned(normalize((bytes(second.w) - 128.0) / 128.0));
  axes = mat3(axes[0] * scales.x, axes[1] * scales.y, axes[2] * scales.z);
  vec2 edge = 1.3 * 0.5 * size / focal; // what is far off the picture is projected as if at its edge
  vec2 slope = clamp(p.xy / p.z, -edge, edge);
  mat3x2 j = mat3x2(focal / p.z, 0.0, 0.0, focal / p.z, -slope * focal / p.z);
  vec2 a = j * axes[0], b = j * axes[1], c = j * axes[2];
  float xx = a.x * a.x + b.x * b.x + c.x * c.x + 0.3, yy = a.y * a.y + b.y * b.y + c.y * c.y + 0.3;
  float xy = a.x * a.y + b.x * b.y + c.x * c.y;
  float mean = 0.5 * (xx + yy), half_gap = length(vec2(0.5 * (xx - yy), xy));
  vec2 main_axis = abs(xy) < 1e-6 ? (xx >= yy ? vec2(1.0, 0.0) : vec2(0.0, 1.0)) : normalize(vec2(xy, mean + half_gap - xx));
  vec2 deviations = sqrt(max(vec2(mean + half_gap, mean - half_gap), 0.1));
  vec4 rgba = bytes(second.z) / 255.0;
  float reach = sqrt(2.0 * log(max(255.0 * rgba.a, 1.0)));
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  offset = reach * corner;
  vec2 pixel = offset.x * deviations.x * main_axis + offset.y * deviations.y * vec2(-main_axis.y, main_axis.x);
  vec2 centre = focal * p.xy / p.z;
  colour = rgba;
  gl_Position = vec4((centre + pixel) * vec2(2.0, -2.0) / size, 0.0, 1.0);
}`;

const SPLAT_FRAGMENT = `
in vec2 offset;
in vec4 colour;
out vec4 result;
void main() {
  float alpha = colour.a * exp(-0.5 * dot(offset, offset));
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(colour.rgb * alpha, alpha);
}`;

class Splats {
  constructor(gl, bytes) {
    this.gl = gl;
    this.count = Math.floor(bytes.length / BYTES);
    const rows = Math.max(1, Math.ceil(this.count / ROW));
    const padded = new Uint8Array(rows * ROW * BYTES);
    padded.set(bytes.subarray(0, this.count * BYTES));
    const floats = new Float32Array(padded.buffer);
    this.centres = new Float32Array(3 * this.count);
    for (let i = 0; i < this.count; i++) for (let k = 0; k < 3; k++) this.centres[3 * i + k] = floats[(BYTES / 4) * i + k];
    Object.assign(this, program(gl, SPLAT_VERTEX, SPLAT_FRAGMENT));
    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, 2 * ROW, rows, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT, new Uint32Array(padded.buffer));
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    this.indices = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.indices);
    const location = gl.getAttribLocation(this.made, "index");
    gl.enableVertexAttribArray(location);
    gl.vertexAttribIPointer(location, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(location, 1);
    this.order = new Uint32Array(this.count);
  }

  /** From back to front, by counting 65,536 depths. */
  sort({ position, forward }) {
    const { count, centres, order } = this;
    const depths = new Float32Array(count);
    let [near, far] = [Infinity, -Infinity];
    for (let i = 0; i < count; i++) {
      depths[i] = (centres[3 * i] - position[0]) * forward[0] + (centres[3 * i + 1] - position[1]) * forward[1] + (centres[3 * i + 2] - position[2]) * forward[2];
      near = Math.min(near, depths[i]);
      far = Math.max(far, depths[i]);
    }
    const scale = 65535 / (far - near || 1);
    const starts = new Uint32Array(65537);
    const bins = new Uint16Array(count);
    for (let i = 0; i < count; i++) {
      bins[i] = (far - depths[i]) * scale;
      starts[bins[i] + 1]++;
    }
    for (let i = 0; i < 65536; i++) starts[i + 1] += starts[i];
    for (let i = 0; i < count; i++) order[starts[bins[i]]++] = i;
  }

  draw(camera, width, height) {
    const gl = this.gl;
    this.sort(camera.pose());
    gl.useProgram(this.made);
    gl.bindVertexArray(this.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.indices);
    gl.bufferData(gl.ARRAY_BUFFER, this.order, gl.DYNAMIC_DRAW);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.uniformMatrix4fv(this.at("view"), false, camera.view());
    gl.uniform2f(this.at("size"), width, height);
    gl.uniform1f(this.at("focal"), height / 2 / Math.tan((camera.fov * DEGREES) / 2));
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.count);
  }

  free() {
    this.gl.deleteTexture(this.texture);
    this.gl.deleteBuffer(this.indices);
    this.gl.deleteVertexArray(this.array);
    this.gl.deleteProgram(this.made);
  }
}

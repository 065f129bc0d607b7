// Blending of projected Gaussians, front to back, and its gradients (Kerbl et al. 2023).
//
// The image is cut into large tiles whose planes (transmittance and channels) stay in cache. Each tile walks through its
// Gaussians in depth order; of each it visits the exact pixel span of the ellipse alpha >= 1/255 in every row, a vector at a
// time. The backward pass walks in reverse, recovers the transmittance in front by dividing by 1 - alpha, and writes one record
// of sums per (Gaussian, tile), which are added up in a fixed order: results do not depend on the number of threads.
#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "pool.h"
#include "simd.h"

namespace raster {

using namespace simd;

constexpr float MIN_ALPHA = 1.0f / 255.0f, MAX_ALPHA = 0.999f, STOP = 1e-4f, LOG2E = 1.44269504f;
constexpr int TILE_W = 64, MAX_TILE_H = 64, STRIDE = TILE_W + WIDTH, NEVER = INT32_MAX;
enum { G_E, G_D, G_DD, G_Y, G_DY, G_YY, G_ABS_X, G_ABS_Y, G_COLOR };  // sums of one (Gaussian, tile)

struct Splat {
  float x, y, a, s, q, o;
  float lo, a2, q2;             // log2 of alpha = lo + a2 d^2 + q2 dy^2
  float cut, ia, reach_x, reach_y;  // the ellipse a d^2 + q dy^2 <= cut, 1 / a, its half width and height
  int id, slot;
};

struct Entry {
  int splat, slot;
};

struct Image {
  std::vector<Splat> splats;      // drawn ones, by depth
  std::vector<float> colors;      // [splats, channels]
  std::vector<int> rank;          // [N] position among the splats, or -1
  std::vector<Entry> entries;     // of all tiles
  std::vector<int> begin;         // [tiles + 1] into entries
  std::vector<int> walked;        // [tiles] entries before all pixels were done
};

struct Frame {
  int images, count, width, height, channels, tile_h, tiles_x, tiles_y;
  std::vector<Image> image;
  std::vector<int32_t> stop;      // [I, H, W] the splat that ended the pixel, or NEVER
  int tiles() const { return tiles_x * tiles_y; }
};

struct Inputs {
  const int32_t* radii;
  const float *means2d, *depths, *ellipses, *opacities, *colors;
};

struct Tile {
  int x, y, w, h;
  Tile(const Frame& f, int index)
      : x(index % f.tiles_x * TILE_W), y(index / f.tiles_x * f.tile_h), w(std::min(TILE_W, f.width - x)), h(std::min(f.tile_h, f.height - y)) {}
};

static void sort_by_depth(std::vector<uint64_t>& keys) {
  constexpr int BITS = 11, SIZE = 1 << BITS;
  std::vector<uint64_t> other(keys.size());
  for (int shift = 32; shift < 64; shift += BITS) {
    uint32_t start[SIZE + 1] = {0};
    for (uint64_t k : keys) start[((k >> shift) & (SIZE - 1)) + 1]++;
    for (int i = 0; i < SIZE; i++) start[i + 1] += start[i];
    for (uint64_t k : keys) other[start[(k >> shift) & (SIZE - 1)]++] = k;
    keys.swap(other);
  }
}

static void prepare(const Frame& f, Image& image, const Inputs& in, int index) {
  const size_t offset = (size_t)index * f.count;
  std::vector<uint64_t> keys;
  keys.reserve(f.count);
  for (int i = 0; i < f.count; i++) {
    if (in.radii[2 * (offset + i)] <= 0) continue;
    uint32_t bits;
    memcpy(&bits, in.depths + offset + i, 4);
    bits ^= bits >> 31 ? 0xffffffffu : 0x80000000u;  // unsigned order = float order
    keys.push_back((uint64_t)bits << 32 | (uint32_t)i);
  }
  sort_by_depth(keys);
  image.splats.resize(keys.size());
  image.colors.resize(keys.size() * f.channels);
  image.rank.assign(f.count, -1);
  image.begin.assign(f.tiles() + 1, 0);
  image.walked.assign(f.tiles(), 0);
  std::vector<uint16_t> rectangle(4 * keys.size());
  int slots = 0;
  for (size_t j = 0; j < keys.size(); j++) {
    const int i = (int)(uint32_t)keys[j];
    const size_t g = offset + i;
    Splat& p = image.splats[j];
    p.x = in.means2d[2 * g], p.y = in.means2d[2 * g + 1];
    p.a = in.ellipses[3 * g], p.s = in.ellipses[3 * g + 1], p.q = in.ellipses[3 * g + 2], p.o = in.opacities[g];
    p.lo = std::log2(p.o), p.a2 = -0.5f * LOG2E * p.a, p.q2 = -0.5f * LOG2E * p.q, p.ia = 1.0f / p.a;
    p.cut = std::max(0.0f, 2.0f / LOG2E * (p.lo - std::log2(MIN_ALPHA))) * (1 + 1e-5f) + 1e-5f;
    p.reach_y = std::sqrt(p.cut / p.q), p.reach_x = std::sqrt(p.cut * (p.ia + p.s * p.s / p.q));
    p.id = i, p.slot = slots;
    image.rank[i] = (int)j;
    for (int c = 0; c < f.channels; c++) image.colors[j * f.channels + c] = in.colors[g * f.channels + c];
    const auto tile = [](float position, int size, int tiles) { return (int)std::min(std::max(position / size, 0.0f), (float)tiles); };
    const int x0 = tile(p.x - p.reach_x, TILE_W, f.tiles_x), x1 = std::min(f.tiles_x, tile(p.x + p.reach_x, TILE_W, f.tiles_x) + 1);
    const int y0 = tile(p.y - p.reach_y, f.tile_h, f.tiles_y), y1 = std::min(f.tiles_y, tile(p.y + p.reach_y, f.tile_h, f.tiles_y) + 1);
    uint16_t* r = &rectangle[4 * j];
    r[0] = x0, r[1] = x1, r[2] = y0, r[3] = y1;
    if (x0 < x1 && y0 < y1) slots += (x1 - x0) * (y1 - y0);
    for (int ty = y0; ty < y1; ty++)
      for (int tx = x0; tx < x1; tx++) image.begin[ty * f.tiles_x + tx + 1]++;
  }
  for (int t = 0; t < f.tiles(); t++) image.begin[t + 1] += image.begin[t];
  image.entries.resize(slots);
  std::vector<int> at(image.begin.begin(), image.begin.end() - 1);
  for (size_t j = 0; j < keys.size(); j++) {
    const uint16_t* r = &rectangle[4 * j];
    int slot = image.splats[j].slot;
    for (int ty = r[2]; ty < r[3]; ty++)
      for (int tx = r[0]; tx < r[1]; tx++) image.entries[at[ty * f.tiles_x + tx]++] = {(int)j, slot++};
  }
}

// The rows of a tile that a splat's ellipse crosses, and in each its pixels [x0, x1], relative to the tile; x0 > x1 if none.
// All is computed from whole pixel positions, so no decision depends on where a tile begins.
struct Spans {
  int y0, y1;
  int32_t x0[MAX_TILE_H + WIDTH], x1[MAX_TILE_H + WIDTH];
  // of row y0 + i: d = x + 0.5 - middle; log2 alpha = base + a2 d^2
  float middle[MAX_TILE_H + WIDTH], base[MAX_TILE_H + WIDTH], dy[MAX_TILE_H + WIDTH];

  bool find(const Splat& p, const Tile& tile) {
    const float top = p.y - tile.y - 0.5f, zero = 0, bottom = tile.h - 1;
    y0 = (int)std::min(std::max(std::ceil(top - p.reach_y), zero), bottom + 1);
    y1 = (int)std::max(std::min(std::floor(top + p.reach_y), bottom), -1.0f);
    if (y0 > y1) return false;
    const F row = lanes() + set(tile.y + y0 + 0.5f), left = set((float)tile.x + 0.5f), right = set((float)tile.w);
    for (int i = 0; i <= y1 - y0; i += WIDTH) {
      const F v = row + set((float)i) - set(p.y), vv = v * v;
      const F half = sqrt(max(fma(set(-p.q), vv, set(p.cut)), set(0.0f)) * set(p.ia)), m = fma(set(p.s), v, set(p.x));
      const F low = m - half - left, high = m + half - left;
      store_int(x0 + i, set(0.0f) - floor(set(0.0f) - min(max(low, set(0.0f)), right)));
      store_int(x1 + i, floor(max(min(high, right - set(1.0f)), set(-1.0f))));
      store(middle + i, m), store(dy + i, v), store(base + i, fma(set(p.q2), vv, set(p.lo)));
    }
    return true;
  }
};

template <int CHANNELS>
static void forward_tile(Frame& f, int index, int number, float* colors, float* transmittance) {
  const int C = CHANNELS > 0 ? CHANNELS : f.channels, row = STRIDE * (C + 1);
  Image& image = f.image[index];
  const Tile tile(f, number);
  std::vector<float> planes((size_t)tile.h * row + WIDTH, 0.0f);
  std::vector<int32_t> stops((size_t)tile.h * STRIDE + WIDTH, NEVER);
  for (int y = 0; y < tile.h; y++) std::fill_n(&planes[y * row], tile.w, 1.0f);  // transmittance; <= 0 once the pixel is done
  Spans spans;
  const int begin = image.begin[number], end = image.begin[number + 1];
  int walked = end - begin, ended = 0;
  for (int e = begin; e < end; e++) {
    const int j = image.entries[e].splat;
    const Splat& p = image.splats[j];
    if (!spans.find(p, tile)) continue;
    const float* color = &image.colors[(size_t)j * C];
    const F a2 = set(p.a2);
    for (int y = spans.y0; y <= spans.y1; y++) {
      const int i = y - spans.y0, last = spans.x1[i];
      const F base = set(spans.base[i]);
      const F middle = set(spans.middle[i]);
      F center = lanes() + set(tile.x + spans.x0[i] + 0.5f);
      for (int x = spans.x0[i]; x <= last; x += WIDTH, center = center + set((float)WIDTH)) {
        const F d = center - middle;
        float* at = planes.data() + y * row + x;
        const F T = load(at);
        const M open = gt(T, set(0.0f));
        if (!any(open)) continue;
        const F alpha = min(exp2(max(fma(d * d, a2, base), set(-126.0f))), set(MAX_ALPHA));
        const M seen = both(ge(alpha, set(MIN_ALPHA)), open);
        F weight = keep(seen, T * alpha);
        const F next = T - weight;
        const M done = without(seen, gt(next, set(STOP)));
        if (__builtin_expect(any(done), 0)) {
          weight = keep(without(seen, done), weight);
          store(at, select(done, set(0.0f) - T, next));
          store_where(done, &stops[y * STRIDE + x], j);
          ended++;
        } else {
          store(at, next);
        }
        for (int c = 0; c < C; c++) store(at + (c + 1) * STRIDE, fma(weight, set(color[c]), load(at + (c + 1) * STRIDE)));
      }
    }
    if (ended > 64) {  // worth looking whether any pixel is left
      ended = 0;
      bool open = false;
      for (int y = 0; y < tile.h && !open; y++)
        for (int x = 0; x < tile.w && !open; x += WIDTH) open = any(gt(load(&planes[y * row + x]), set(0.0f)));
      if (!open) {
        walked = e + 1 - begin;
        break;
      }
    }
  }
  image.walked[number] = walked;
  for (int y = 0; y < tile.h; y++) {
    const size_t out = ((size_t)index * f.height + tile.y + y) * f.width + tile.x;
    for (int x = 0; x < tile.w; x++) {
      const float* at = &planes[y * row + x];
      transmittance[out + x] = std::fabs(at[0]);
      for (int c = 0; c < C; c++) colors[(out + x) * C + c] = at[(c + 1) * STRIDE];
    }
    std::copy_n(&stops[y * STRIDE], tile.w, &f.stop[out]);
  }
}

template <int CHANNELS, bool ABS>
static void backward_tile(const Frame& f, int index, int number, const float* transmittance, const float* v_colors,
                          const float* v_transmittance, float* sums) {
  const int C = CHANNELS > 0 ? CHANNELS : f.channels, row = STRIDE * (C + 2), size = G_COLOR + C;
  const Image& image = f.image[index];
  const Tile tile(f, number);
  std::vector<float> planes((size_t)tile.h * row + WIDTH, 0.0f);  // T, what lies behind, d loss / d channels
  std::vector<int32_t> stops((size_t)tile.h * STRIDE + WIDTH, -1);
  for (int y = 0; y < tile.h; y++) {
    const size_t in = ((size_t)index * f.height + tile.y + y) * f.width + tile.x;
    for (int x = 0; x < tile.w; x++) {
      float* at = &planes[y * row + x];
      at[0] = transmittance[in + x], at[STRIDE] = transmittance[in + x] * v_transmittance[in + x];
      for (int c = 0; c < C; c++) at[(c + 2) * STRIDE] = v_colors[(in + x) * C + c];
    }
    std::copy_n(&f.stop[in], tile.w, &stops[y * STRIDE]);
  }
  std::vector<float> wide(CHANNELS > 0 ? 0 : C * WIDTH);
  Spans spans;
  const int begin = image.begin[number], end = image.begin[number + 1], walked = begin + image.walked[number];
  for (int e = end - 1; e >= begin; e--) {
    const int j = image.entries[e].splat;
    const Splat& p = image.splats[j];
    float* out = sums + (size_t)image.entries[e].slot * size;
    if (e >= walked || !spans.find(p, tile)) {
      std::fill_n(out, size, 0.0f);
      continue;
    }
    const float* color = &image.colors[(size_t)j * C];
    const F a2 = set(p.a2), none = set(0.0f);
    F se = none, sd = none, sdd = none, sy = none, sdy = none, syy = none, ax = none, ay = none;
    F sc[CHANNELS > 0 ? CHANNELS : 1];  // sums for the colours; in memory if their number is not known here
    std::fill(wide.begin(), wide.end(), 0.0f);
    for (int c = 0; c < CHANNELS; c++) sc[c] = none;
    for (int y = spans.y0; y <= spans.y1; y++) {
      const int i = y - spans.y0, last = spans.x1[i];
      if (spans.x0[i] > last) continue;
      const F base = set(spans.base[i]);
      const F middle = set(spans.middle[i]);
      F re = none, rd = none, center = lanes() + set(tile.x + spans.x0[i] + 0.5f);
      for (int x = spans.x0[i]; x <= last; x += WIDTH, center = center + set((float)WIDTH)) {
        const F d = center - middle;
        float* at = planes.data() + y * row + x;
        const M reached = later(&stops[y * STRIDE + x], j);
        if (!any(reached)) continue;
        const F raw = exp2(max(fma(d * d, a2, base), set(-126.0f))), clamped = min(raw, set(MAX_ALPHA));
        const M seen = both(ge(clamped, set(MIN_ALPHA)), reached);
        const F alpha = keep(seen, clamped), ra = set(1.0f) / (set(1.0f) - alpha);
        const F T = load(at) * ra, weight = T * alpha, behind = load(at + STRIDE);
        F cv = none;
        for (int c = 0; c < C; c++) {
          const F v = load(at + (c + 2) * STRIDE);
          if (CHANNELS > 0) sc[c] = fma(weight, v, sc[c]);
          else store(&wide[c * WIDTH], fma(weight, v, load(&wide[c * WIDTH])));
          cv = fma(set(color[c]), v, cv);
        }
        store(at, T);
        store(at + STRIDE, fma(weight, cv, behind));
        const F va = cv * T - behind * ra;
        const F ve = keep(both(seen, ge(set(MAX_ALPHA), raw)), va * raw);  // d loss / d log alpha
        const F vd = ve * d;
        re = re + ve, rd = rd + vd, sdd = fma(vd, d, sdd);
        if (ABS) {
          const F gx = vd * set(p.a);
          ax = ax + abs(gx), ay = ay + abs(ve * set(p.q * spans.dy[i]) - gx * set(p.s));
        }
      }
      const F dy = set(spans.dy[i]), ey = re * dy;
      se = se + re, sd = sd + rd, sy = sy + ey, sdy = fma(rd, dy, sdy), syy = fma(ey, dy, syy);
    }
    out[G_E] = sum(se), out[G_D] = sum(sd), out[G_DD] = sum(sdd), out[G_Y] = sum(sy), out[G_DY] = sum(sdy), out[G_YY] = sum(syy);
    out[G_ABS_X] = ABS ? sum(ax) : 0, out[G_ABS_Y] = ABS ? sum(ay) : 0;
    for (int c = 0; c < C; c++) out[G_COLOR + c] = sum(CHANNELS > 0 ? sc[c] : load(&wide[c * WIDTH]));
  }
}

struct Gradients {
  float *means2d, *ellipses, *opacities, *colors, *absgrad;
};

// Adds up what the tiles wrote for Gaussians [first, last) of an image, in the order of the tiles.
template <int CHANNELS>
static void add_up(const Frame& f, int index, int first, int last, const float* sums, const Gradients& out) {
  const int C = CHANNELS > 0 ? CHANNELS : f.channels, size = G_COLOR + C;
  const Image& image = f.image[index];
  double fixed[G_COLOR + (CHANNELS > 0 ? CHANNELS : 1)];
  std::vector<double> dynamic(CHANNELS > 0 ? 0 : size);
  double* total = CHANNELS > 0 ? fixed : dynamic.data();
  for (int i = first; i < last; i++) {
    const size_t g = (size_t)index * f.count + i;
    const int j = image.rank[i];
    for (int d = 0; d < size; d++) total[d] = 0;
    if (j >= 0) {
      const int end = j + 1 < (int)image.splats.size() ? image.splats[j + 1].slot : (int)image.entries.size();
      for (int slot = image.splats[j].slot; slot < end; slot++)
        for (int d = 0; d < size; d++) total[d] += sums[(size_t)slot * size + d];
    }
    const Splat p = j >= 0 ? image.splats[j] : Splat{};
    out.means2d[2 * g] = (float)(p.a * total[G_D]);
    out.means2d[2 * g + 1] = (float)(p.q * total[G_Y] - (double)p.a * p.s * total[G_D]);
    out.ellipses[3 * g] = (float)(-0.5 * total[G_DD]);
    out.ellipses[3 * g + 1] = (float)(p.a * total[G_DY]);
    out.ellipses[3 * g + 2] = (float)(-0.5 * total[G_YY]);
    out.opacities[g] = j >= 0 ? (float)(total[G_E] / p.o) : 0.0f;
    for (int c = 0; c < C; c++) out.colors[g * C + c] = (float)total[G_COLOR + c];
    if (out.absgrad) out.absgrad[2 * g] += (float)total[G_ABS_X], out.absgrad[2 * g + 1] += (float)total[G_ABS_Y];
  }
}

}  // namespace raster

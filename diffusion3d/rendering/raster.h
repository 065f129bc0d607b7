// Blending of projected Gaussians, front to back, and its gradients (Kerbl et al. 2023).
//
// The image is cut into large tiles whose planes (transmittance and channels) stay in cache. Each tile walks through its
// Gaussians in depth order; of each it finds the exact pixel span of the ellipse alpha >= 1/255 in every row and the alphas
// there, a vector at a time, and then blends them. The backward pass walks in reverse, recovers the transmittance in front by
// dividing by 1 - alpha, and writes one record of sums per (Gaussian, tile), which are added up in a fixed order: results do not
// depend on the number of threads.
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
constexpr int TILE_W = 64, MAX_TILE_H = 32, STRIDE = TILE_W + WIDTH, NEVER = INT32_MAX, CHUNK = 1024;
enum { G_E, G_D, G_DD, G_Y, G_DY, G_YY, G_ABS_X, G_ABS_Y, G_COLOR };  // sums of one (Gaussian, tile)

static int record(int channels) { return G_COLOR + (channels + 3) / 4 * 4; }  // their number, rounded up to fours

static float bits(int32_t n) {  // a plane of integers lies among those of floats
  float a;
  memcpy(&a, &n, sizeof a);
  return a;
}

struct alignas(64) Splat {
  float x, y, a, s, q, o;
  float lo, a2, q2;             // log2 of alpha = lo + a2 d^2 + q2 dy^2
  float cut, ia, reach_y;       // the ellipse a d^2 + q dy^2 <= cut, 1 / a, its half height
  int16_t x0, x1, y0, y1;       // tiles that it may touch
  int slot;                     // of its first record
  Splat() {}                    // leaves a vector's memory as it is; all is written anyway
};

struct Entry {
  int splat, slot;
};

struct Image {
  std::vector<uint64_t> order;    // depth and number of the drawn ones, sorted
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
  std::vector<int> schedule;      // tiles of all images, those with most entries first: threads end at about the same time
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

// Preparation of an image, in three steps: the order of its splats, each splat, and the lists of the tiles.
static void order(const Frame& f, Image& image, const Inputs& in, int index) {
  const size_t offset = (size_t)index * f.count;
  image.order.reserve(f.count);
  for (int i = 0; i < f.count; i++) {
    if (in.radii[2 * (offset + i)] <= 0) continue;
    uint32_t bits;
    memcpy(&bits, in.depths + offset + i, 4);
    bits ^= bits >> 31 ? 0xffffffffu : 0x80000000u;  // unsigned order = float order
    image.order.push_back((uint64_t)bits << 32 | (uint32_t)i);
  }
  sort_by_depth(image.order);
  image.splats.resize(image.order.size());
  image.colors.resize(image.order.size() * f.channels);
  image.rank.assign(f.count, -1);
}

// Splats [first, last) by depth.
static void fill(const Frame& f, Image& image, const Inputs& in, int index, int first, int last) {
  for (int j = first; j < std::min(last, (int)image.order.size()); j++) {
    const int i = (int)(uint32_t)image.order[j];
    const size_t g = (size_t)index * f.count + i;
    Splat& p = image.splats[j];
    p.x = in.means2d[2 * g], p.y = in.means2d[2 * g + 1];
    p.a = in.ellipses[3 * g], p.s = in.ellipses[3 * g + 1], p.q = in.ellipses[3 * g + 2], p.o = in.opacities[g];
    p.lo = std::log2(p.o), p.a2 = -0.5f * LOG2E * p.a, p.q2 = -0.5f * LOG2E * p.q, p.ia = 1.0f / p.a;
    p.cut = std::max(0.0f, 2.0f / LOG2E * (p.lo - std::log2(MIN_ALPHA))) * (1 + 1e-5f) + 1e-5f;
    p.reach_y = std::sqrt(p.cut / p.q);
    const float reach_x = std::sqrt(p.cut * (p.ia + p.s * p.s / p.q));
    const auto tile = [](float position, int size, int tiles) { return (int)std::min(std::max(position / size, 0.0f), (float)tiles); };
    p.x0 = tile(p.x - reach_x, TILE_W, f.tiles_x), p.x1 = std::min(f.tiles_x, tile(p.x + reach_x, TILE_W, f.tiles_x) + 1);
    p.y0 = tile(p.y - p.reach_y, f.tile_h, f.tiles_y), p.y1 = std::min(f.tiles_y, tile(p.y + p.reach_y, f.tile_h, f.tiles_y) + 1);
    image.rank[i] = j;
    for (int c = 0; c < f.channels; c++) image.colors[(size_t)j * f.channels + c] = in.colors[g * f.channels + c];
  }
}

static void list(const Frame& f, Image& image) {
  image.begin.assign(f.tiles() + 1, 0);
  image.walked.assign(f.tiles(), 0);
  int slots = 0;
  for (Splat& p : image.splats) {
    p.slot = slots;
    if (p.x0 < p.x1 && p.y0 < p.y1) slots += (p.x1 - p.x0) * (p.y1 - p.y0);
    for (int ty = p.y0; ty < p.y1; ty++)
      for (int tx = p.x0; tx < p.x1; tx++) image.begin[ty * f.tiles_x + tx + 1]++;
  }
  for (int t = 0; t < f.tiles(); t++) image.begin[t + 1] += image.begin[t];
  image.entries.resize(slots);
  std::vector<int> at(image.begin.begin(), image.begin.end() - 1);
  for (size_t j = 0; j < image.splats.size(); j++) {
    const Splat& p = image.splats[j];
    int slot = p.slot;
    for (int ty = p.y0; ty < p.y1; ty++)
      for (int tx = p.x0; tx < p.x1; tx++) image.entries[at[ty * f.tiles_x + tx]++] = {(int)j, slot++};
  }
}

// The vectors of pixels in a tile that a splat's ellipse crosses, with what depends on the splat alone. They are found before any
// is blended: two short loops measure faster than one long one. All is computed from whole pixel positions, so no decision depends
// on where a tile begins.
struct Cover {
  static constexpr int VECTORS = MAX_TILE_H * ((TILE_W + WIDTH - 1) / WIDTH);
  int count, at[VECTORS];           // first pixel, from the start of the planes
  float dy[VECTORS];                // from the mean; d = dx - s dy
  alignas(64) float d[VECTORS * WIDTH], raw[VECTORS * WIDTH];  // raw: alpha before it is limited

  // `wanted` tells whether a vector, given by `at`, has a pixel that matters.
  template <typename Wanted>
  void find(const Splat& p, const Tile& tile, int row, Wanted wanted) {
    int n = 0;
    const float top = p.y - tile.y - 0.5f, zero = 0, bottom = tile.h - 1;
    const int y0 = (int)std::min(std::max(std::ceil(top - p.reach_y), zero), bottom + 1);
    const int y1 = (int)std::max(std::min(std::floor(top + p.reach_y), bottom), -1.0f);
    const F first = lanes() + set(tile.y + 0.5f), left = set((float)tile.x + 0.5f), right = set((float)tile.w), a2 = set(p.a2);
    for (int i = y0; i <= y1; i += WIDTH) {
      int32_t x0[WIDTH], x1[WIDTH];
      float middle[WIDTH], base[WIDTH], v[WIDTH];  // d = x + 0.5 - middle; log2 alpha = base + a2 d^2
      const F dys = first + set((float)i) - set(p.y), vv = dys * dys;
      const F half = sqrt(max(fma(set(-p.q), vv, set(p.cut)), set(0.0f)) * set(p.ia)), m = fma(set(p.s), dys, set(p.x));
      const F low = m - half - left, high = m + half - left;
      store_int(x0, set(0.0f) - floor(set(0.0f) - min(max(low, set(0.0f)), right)));
      store_int(x1, floor(max(min(high, right - set(1.0f)), set(-1.0f))));
      store(middle, m), store(v, dys), store(base, fma(set(p.q2), vv, set(p.lo)));
      for (int r = 0; r < std::min(WIDTH, y1 + 1 - i); r++)
        for (int x = x0[r]; x <= x1[r]; x += WIDTH) {
          const int here = (i + r) * row + x;
          if (!wanted(here)) continue;
          const F distance = lanes() + set(tile.x + x + 0.5f) - set(middle[r]);
          at[n] = here, dy[n] = v[r];
          store(d + n * WIDTH, distance);
          store(raw + n * WIDTH, exp2(max(fma(distance * distance, a2, set(base[r])), set(-126.0f))));
          n++;
        }
    }
    count = n;
  }
};

template <int CHANNELS>
static void forward_tile(Frame& f, int index, int number, float* colors, float* transmittance) {
  const int C = CHANNELS > 0 ? CHANNELS : f.channels, row = STRIDE * (C + 2);
  Image& image = f.image[index];
  const Tile tile(f, number);
  std::vector<float> planes((size_t)tile.h * row + WIDTH, 0.0f);  // transmittance, <= 0 once the pixel is done; stop; channels
  for (int y = 0; y < tile.h; y++) {
    std::fill_n(&planes[y * row], tile.w, 1.0f);
    std::fill_n(&planes[y * row + STRIDE], tile.w, bits(NEVER));
  }
  const auto open = [&](int at) { return any(gt(load(&planes[at]), set(0.0f))); };
  const auto finished = [&] {
    for (int y = 0; y < tile.h; y++)
      for (int x = 0; x < tile.w; x += WIDTH)
        if (open(y * row + x)) return false;
    return true;
  };
  Cover cover;
  const int begin = image.begin[number], end = image.begin[number + 1];
  int e = begin;
  for (; e < end; e++) {
    if ((e - begin) % 64 == 63 && finished()) break;
    const int j = image.entries[e].splat;
    __builtin_prefetch(&image.splats[image.entries[std::min(e + 8, end - 1)].splat]);  // a tile skips too many to be foreseen
    const float* color = &image.colors[(size_t)j * C];
    cover.find(image.splats[j], tile, row, open);
    for (int k = 0; k < cover.count; k++) {
      float* at = planes.data() + cover.at[k];
      const F T = load(at), alpha = min(load(cover.raw + k * WIDTH), set(MAX_ALPHA)), taken = T * alpha;
      const M seen = both(ge(alpha, set(MIN_ALPHA)), gt(T, set(0.0f)));
      const M kept = both(seen, gt(T - taken, set(STOP))), done = without(seen, kept);
      const F weight = keep(kept, taken);
      store(at, select(done, set(0.0f) - T, T - weight));
      if (__builtin_expect(any(done), 0)) store_where(done, (int32_t*)at + STRIDE, j);
      for (int c = 0; c < C; c++) store(at + (c + 2) * STRIDE, fma(weight, set(color[c]), load(at + (c + 2) * STRIDE)));
    }
  }
  image.walked[number] = e - begin;
  for (int y = 0; y < tile.h; y++) {
    const size_t out = ((size_t)index * f.height + tile.y + y) * f.width + tile.x;
    const float* from = &planes[y * row];
    for (int x = 0; x < tile.w; x++) {
      transmittance[out + x] = std::fabs(from[x]);
      for (int c = 0; c < C; c++) colors[(out + x) * C + c] = from[(c + 2) * STRIDE + x];
    }
    memcpy(&f.stop[out], from + STRIDE, tile.w * sizeof(float));
  }
}

template <int CHANNELS, bool ABS>
static void backward_tile(const Frame& f, int index, int number, const float* transmittance, const float* v_colors,
                          const float* v_transmittance, float* sums) {
  const int C = CHANNELS > 0 ? CHANNELS : f.channels, row = STRIDE * (C + 3), size = record(C);
  const Image& image = f.image[index];
  const Tile tile(f, number);
  std::vector<float> planes((size_t)tile.h * row + WIDTH, 0.0f);  // transmittance, stop, what lies behind, d loss / d channels
  for (int y = 0; y < tile.h; y++) {
    const size_t in = ((size_t)index * f.height + tile.y + y) * f.width + tile.x;
    float* to = &planes[y * row];
    std::fill_n(to + STRIDE, STRIDE, bits(-1));
    memcpy(to + STRIDE, &f.stop[in], tile.w * sizeof(float));
    for (int x = 0; x < tile.w; x++) {
      to[x] = transmittance[in + x], to[2 * STRIDE + x] = transmittance[in + x] * v_transmittance[in + x];
      for (int c = 0; c < C; c++) to[(c + 3) * STRIDE + x] = v_colors[(in + x) * C + c];
    }
  }
  std::vector<float> wide(CHANNELS > 0 ? 0 : (C + 3) / 4 * 4 * WIDTH);
  Cover cover;
  const int begin = image.begin[number], end = image.begin[number + 1], walked = begin + image.walked[number];
  for (int e = end - 1; e >= begin; e--) {
    const int j = image.entries[e].splat;
    __builtin_prefetch(&image.splats[image.entries[std::max(e - 8, begin)].splat]);
    const Splat& p = image.splats[j];
    float* out = sums + (size_t)image.entries[e].slot * size;
    const auto reached = [&](int at) { return later((int32_t*)&planes[at] + STRIDE, j); };
    cover.count = 0;
    if (e < walked) cover.find(p, tile, row, [&](int at) { return any(reached(at)); });
    if (cover.count == 0) {
      std::fill_n(out, size, 0.0f);
      continue;
    }
    const float* color = &image.colors[(size_t)j * C];
    const F none = set(0.0f);
    F se = none, sd = none, sdd = none, sy = none, sdy = none, syy = none, ax = none, ay = none;
    F sc[4] = {none, none, none, none};  // sums for the colours; in `wide` if their number is not known here
    std::fill(wide.begin(), wide.end(), 0.0f);
    for (int k = 0; k < cover.count; k++) {
      float* at = planes.data() + cover.at[k];
      const F raw = load(cover.raw + k * WIDTH), clamped = min(raw, set(MAX_ALPHA));
      const M seen = both(ge(clamped, set(MIN_ALPHA)), reached(cover.at[k]));
      const F alpha = keep(seen, clamped), ra = set(1.0f) / (set(1.0f) - alpha);
      const F T = load(at) * ra, weight = T * alpha, behind = load(at + 2 * STRIDE);
      F cv = none;
      for (int c = 0; c < C; c++) {
        const F v = load(at + (c + 3) * STRIDE);
        if (CHANNELS > 0) sc[c] = fma(weight, v, sc[c]);
        else store(&wide[c * WIDTH], fma(weight, v, load(&wide[c * WIDTH])));
        cv = fma(set(color[c]), v, cv);
      }
      store(at, T);
      store(at + 2 * STRIDE, fma(weight, cv, behind));
      const F va = cv * T - behind * ra;
      const F ve = keep(both(seen, ge(set(MAX_ALPHA), raw)), va * raw);  // d loss / d log alpha
      const F d = load(cover.d + k * WIDTH), dy = set(cover.dy[k]), vd = ve * d, vy = ve * dy;
      se = se + ve, sd = sd + vd, sdd = fma(vd, d, sdd), sy = sy + vy, sdy = fma(vd, dy, sdy), syy = fma(vy, dy, syy);
      if (ABS) {
        const F gx = vd * set(p.a);
        ax = ax + abs(gx), ay = ay + abs(vy * set(p.q) - gx * set(p.s));
      }
    }
    store_sums(out, se, sd, sdd, sy), store_sums(out + G_DY, sdy, syy, ax, ay);
    for (int c = 0; c < C; c += 4) {
      const auto channel = [&](int k) { return CHANNELS > 0 ? sc[k] : load(&wide[(c + k) * WIDTH]); };
      store_sums(out + G_COLOR + c, channel(0), channel(1), channel(2), channel(3));
    }
  }
}

struct Gradients {
  float *means2d, *ellipses, *opacities, *colors, *absgrad;
};

// Adds up what the tiles wrote for Gaussians [first, last) of an image, in the order of the tiles.
template <int CHANNELS>
static void add_up(const Frame& f, int index, int first, int last, const float* sums, const Gradients& out) {
  const int C = CHANNELS > 0 ? CHANNELS : f.channels, size = CHANNELS > 0 ? G_COLOR + 4 : record(C);
  const Image& image = f.image[index];
  double fixed[G_COLOR + 4];
  std::vector<double> dynamic(CHANNELS > 0 ? 0 : size);
  double* total = CHANNELS > 0 ? fixed : dynamic.data();
  for (int i = first; i < last; i++) {
    const size_t g = (size_t)index * f.count + i;
    const int j = image.rank[i];
    for (int d = 0; d < size; d++) total[d] = 0;
    float a = 0, s = 0, q = 0, o = 1;
    if (j >= 0) {
      const Splat& p = image.splats[j];
      a = p.a, s = p.s, q = p.q, o = p.o;
      const int end = j + 1 < (int)image.splats.size() ? image.splats[j + 1].slot : (int)image.entries.size();
      for (int slot = p.slot; slot < end; slot++)
        for (int d = 0; d < size; d++) total[d] += sums[(size_t)slot * size + d];
    }
    out.means2d[2 * g] = (float)(a * total[G_D]);
    out.means2d[2 * g + 1] = (float)(q * total[G_Y] - (double)a * s * total[G_D]);
    out.ellipses[3 * g] = (float)(-0.5 * total[G_DD]);
    out.ellipses[3 * g + 1] = (float)(a * total[G_DY]);
    out.ellipses[3 * g + 2] = (float)(-0.5 * total[G_YY]);
    out.opacities[g] = (float)(total[G_E] / o);
    for (int c = 0; c < C; c++) out.colors[g * C + c] = (float)total[G_COLOR + c];
    if (out.absgrad) out.absgrad[2 * g] += (float)total[G_ABS_X], out.absgrad[2 * g + 1] += (float)total[G_ABS_Y];
  }
}

}  // namespace raster

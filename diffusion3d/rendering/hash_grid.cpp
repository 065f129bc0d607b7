// Multi-resolution hash encoding (Mueller et al. 2022, section 3): trilinear interpolation in L grids of growing resolution, each
// stored densely where it fits into its table and hashed where it does not. The plain-torch twin is hash_grid.py.
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "pool.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int BLOCK = 8192;
constexpr int LANES = 16;

struct Level {
  int resolution;    // cells along a side
  uint32_t entries;  // of its table
  int64_t offset;    // of its table, in entries
};

struct Grid {
  int points, levels;
  const int32_t *resolutions, *entries;

  Level level(int l) const {
    int64_t offset = 0;
    for (int i = 0; i < l; i++) offset += entries[i];
    return {resolutions[l], (uint32_t)entries[l], offset};
  }
};

// For up to LANES points from `first`: the entry and the weight of their eight corners, and optionally the weights' derivatives.
struct Corners {
  uint32_t entry[8][LANES];
  float weight[8][LANES];
  float fraction[3][LANES];

  void find(const Level& level, const float* x, int count) {
    uint32_t cell[3][LANES];
    const float side = (float)level.resolution;
    for (int d = 0; d < 3; d++)
      for (int i = 0; i < count; i++) {
        const float at = x[3 * i + d] * side;
        const int low = !(at > 0) ? 0 : (at >= side ? level.resolution - 1 : (int)at);  // NaN: 0
        cell[d][i] = (uint32_t)low;
        fraction[d][i] = at - (float)low;
      }
    const uint64_t row = (uint64_t)level.resolution + 1;
    const bool dense = row * row * row <= level.entries;
    const uint32_t stride_y = dense ? (uint32_t)row : 2654435761u, stride_z = dense ? (uint32_t)(row * row) : 805459861u;
    for (int c = 0; c < 8; c++) {
      const uint32_t dx = c & 1, dy = c >> 1 & 1, dz = c >> 2;
      for (int i = 0; i < LANES; i++) {
        const uint32_t px = cell[0][i] + dx, py = (cell[1][i] + dy) * stride_y, pz = (cell[2][i] + dz) * stride_z;
        entry[c][i] = dense ? px + py + pz : (px ^ py ^ pz) & (level.entries - 1);
        weight[c][i] = (dx ? fraction[0][i] : 1 - fraction[0][i]) * (dy ? fraction[1][i] : 1 - fraction[1][i]) *
                       (dz ? fraction[2][i] : 1 - fraction[2][i]);
      }
    }
  }
};

// Calls use(corners, first, count) for groups of points; the entries of the next group are on their way meanwhile.
template <int F, typename Use>
void each_group(const Level& level, const float* x, int begin, int end, const float* values, const Use& use) {
  Corners corners[2] = {};
  const auto count = [&](int first) { return end - first < LANES ? end - first : LANES; };
  const auto fetch = [&](int first) {
    if (first >= end) return;
    Corners& next = corners[first / LANES & 1];
    next.find(level, x + 3 * (int64_t)first, count(first));
    for (int c = 0; c < 8; c++)
      for (int i = 0; i < LANES; i++) __builtin_prefetch(values + (int64_t)next.entry[c][i] * F);
  };
  fetch(begin);
  for (int first = begin; first < end; first += LANES) {
    fetch(first + LANES);
    use(corners[first / LANES & 1], first, count(first));
  }
}

template <int F>
void forward(const Grid& grid, const float* x, const float* table, float* out, int threads) {
  const int blocks = (grid.points + BLOCK - 1) / BLOCK, width = grid.levels * F;
  Pool::run(grid.levels * blocks, threads, [&](int task) {
    const int l = task / blocks, begin = task % blocks * BLOCK;
    const int end = begin + BLOCK < grid.points ? begin + BLOCK : grid.points;
    const Level level = grid.level(l);
    const float* values = table + level.offset * F;
    each_group<F>(level, x, begin, end, values, [&](const Corners& corners, int first, int count) {
      for (int i = 0; i < count; i++) {
        float sum[F] = {};
        for (int c = 0; c < 8; c++)
          for (int f = 0; f < F; f++) sum[f] += corners.weight[c][i] * values[(int64_t)corners.entry[c][i] * F + f];
        for (int f = 0; f < F; f++) out[(int64_t)(first + i) * width + l * F + f] = sum[f];
      }
    });
  });
}

// A level's table belongs to one task, so that sums have the same order with any number of threads.
template <int F>
void backward_table(const Grid& grid, const float* x, const float* v_out, float* v_table, int threads) {
  const int width = grid.levels * F;
  Pool::run(grid.levels, threads, [&](int task) {
    const int l = grid.levels - 1 - task;
    const Level level = grid.level(l);
    float* values = v_table + level.offset * F;
    std::memset(values, 0, sizeof(float) * F * level.entries);
    each_group<F>(level, x, 0, grid.points, values, [&](const Corners& corners, int first, int count) {
      for (int i = 0; i < count; i++) {
        const float* v = v_out + (int64_t)(first + i) * width + l * F;
        for (int c = 0; c < 8; c++)
          for (int f = 0; f < F; f++) values[(int64_t)corners.entry[c][i] * F + f] += corners.weight[c][i] * v[f];
      }
    });
  });
}

template <int F>
void backward_points(const Grid& grid, const float* x, const float* table, const float* v_out, float* v_x, int threads) {
  const int blocks = (grid.points + BLOCK - 1) / BLOCK, width = grid.levels * F;
  Pool::run(blocks, threads, [&](int task) {
    const int begin = task * BLOCK, end = begin + BLOCK < grid.points ? begin + BLOCK : grid.points;
    std::memset(v_x + 3 * (int64_t)begin, 0, sizeof(float) * 3 * (end - begin));
    for (int l = 0; l < grid.levels; l++) {
      const Level level = grid.level(l);
      const float* values = table + level.offset * F;
      each_group<F>(level, x, begin, end, values, [&](const Corners& corners, int first, int count) {
        for (int i = 0; i < count; i++) {
          const float* v = v_out + (int64_t)(first + i) * width + l * F;
          float* gradient = v_x + 3 * (int64_t)(first + i);
          for (int c = 0; c < 8; c++) {
            float along = 0;
            for (int f = 0; f < F; f++) along += v[f] * values[(int64_t)corners.entry[c][i] * F + f];
            along *= (float)level.resolution;
            float part[3], sign[3];
            for (int d = 0; d < 3; d++) {
              const bool high = c >> d & 1;
              part[d] = high ? corners.fraction[d][i] : 1 - corners.fraction[d][i];
              sign[d] = high ? 1.f : -1.f;
            }
            gradient[0] += along * sign[0] * part[1] * part[2];
            gradient[1] += along * sign[1] * part[0] * part[2];
            gradient[2] += along * sign[2] * part[0] * part[1];
          }
        }
      });
    }
  });
}

}  // namespace

// x [points, 3] in [0, 1]; table [sum of entries, features]; out [points, levels * features]; features is 1, 2, 4 or 8.
EXPORT void d3d_hash_grid(int points, int levels, int features, const int32_t* resolutions, const int32_t* entries,
                          const float* x, const float* table, float* out, int threads) {
  const Grid grid = {points, levels, resolutions, entries};
  switch (features) {
    case 1: return forward<1>(grid, x, table, out, threads);
    case 2: return forward<2>(grid, x, table, out, threads);
    case 4: return forward<4>(grid, x, table, out, threads);
    case 8: return forward<8>(grid, x, table, out, threads);
  }
}

// v_table and v_x are written where they are not null.
EXPORT void d3d_hash_grid_backward(int points, int levels, int features, const int32_t* resolutions, const int32_t* entries,
                                   const float* x, const float* table, const float* v_out, float* v_table, float* v_x,
                                   int threads) {
  const Grid grid = {points, levels, resolutions, entries};
  const auto run = [&](auto constant) {
    constexpr int F = decltype(constant)::value;
    if (v_table) backward_table<F>(grid, x, v_out, v_table, threads);
    if (v_x) backward_points<F>(grid, x, table, v_out, v_x, threads);
  };
  switch (features) {
    case 1: return run(std::integral_constant<int, 1>());
    case 2: return run(std::integral_constant<int, 2>());
    case 4: return run(std::integral_constant<int, 4>());
    case 8: return run(std::integral_constant<int, 8>());
  }
}

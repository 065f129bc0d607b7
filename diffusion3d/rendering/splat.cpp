// C interface of the Gaussian-splat rasteriser; see kernel.py. Results are the same bits for any number of threads.
#include <numeric>

#include "projection.h"
#include "raster.h"

namespace {

template <typename Call>
void by_channels(int channels, Call call) {
  if (channels == 1) return call(std::integral_constant<int, 1>());
  if (channels == 3) return call(std::integral_constant<int, 3>());
  if (channels == 4) return call(std::integral_constant<int, 4>());
  call(std::integral_constant<int, 0>());
}

}  // namespace

#define API __attribute__((visibility("default")))

extern "C" {

API void d3d_project(int scenes, int cameras, int count, int width, int height, float eps2d, float near_plane, float far_plane,
                 float radius_clip, int antialiased, const float* means, const float* quats, const float* scales,
                 const float* opacities, const float* viewmats, const float* Ks, int32_t* radii, float* means2d, float* depths,
                 float* ellipses, float* compensations, int threads) {
  projection::forward({scenes, cameras, count, width, height, eps2d}, near_plane, far_plane, radius_clip, antialiased, means, quats,
                      scales, opacities, viewmats, Ks, radii, means2d, depths, ellipses, compensations, threads);
}

API void d3d_project_backward(int scenes, int cameras, int count, int width, int height, float eps2d, const float* means,
                          const float* quats, const float* scales, const float* viewmats, const float* Ks, const int32_t* radii,
                          const float* v_means2d, const float* v_depths, const float* v_ellipses, const float* v_compensations,
                          float* v_means, float* v_quats, float* v_scales, float* v_viewmats, int threads) {
  projection::backward({scenes, cameras, count, width, height, eps2d}, means, quats, scales, viewmats, Ks, radii, v_means2d, v_depths,
                       v_ellipses, v_compensations, v_means, v_quats, v_scales, v_viewmats, threads);
}

API void d3d_free(void* frame) { delete static_cast<raster::Frame*>(frame); }

// Returns what the backward pass needs; d3d_free releases it.
API void* d3d_composite(int images, int count, int width, int height, int channels, const int32_t* radii, const float* means2d,
                    const float* depths, const float* ellipses, const float* opacities, const float* colors, float* image,
                    float* transmittance, int threads) {
  using namespace raster;
  auto* f = new Frame;
  f->images = images, f->count = count, f->width = width, f->height = height, f->channels = channels;
  f->tile_h = channels <= 4 ? 32 : 16;
  f->tiles_x = (width + TILE_W - 1) / TILE_W, f->tiles_y = (height + f->tile_h - 1) / f->tile_h;
  f->image.resize(images);
  f->stop.resize((size_t)images * height * width);
  const Inputs in{radii, means2d, depths, ellipses, opacities, colors};
  const int chunks = (count + CHUNK - 1) / CHUNK;
  Pool::run(images, threads, [&](int i) { order(*f, f->image[i], in, i); });
  Pool::run(images * chunks, threads, [&](int task) {
    const int i = task / chunks, first = task % chunks * CHUNK;
    fill(*f, f->image[i], in, i, first, first + CHUNK);
  });
  Pool::run(images, threads, [&](int i) { list(*f, f->image[i]); });
  f->schedule.resize(images * f->tiles());
  std::iota(f->schedule.begin(), f->schedule.end(), 0);
  const auto entries = [&](int tile) {
    const int* begin = &f->image[tile / f->tiles()].begin[tile % f->tiles()];
    return begin[1] - begin[0];
  };
  std::stable_sort(f->schedule.begin(), f->schedule.end(), [&](int a, int b) { return entries(a) > entries(b); });
  by_channels(channels, [&](auto c) {
    Pool::run(images * f->tiles(), threads, [&](int task) {
      const int i = f->schedule[task] / f->tiles(), tile = f->schedule[task] % f->tiles();
      forward_tile<decltype(c)::value>(*f, i, tile, image, transmittance);
    });
  });
  return f;
}

// v_absgrad may be null; it is added to.
API void d3d_composite_backward(const void* frame, const float* transmittance, const float* v_image, const float* v_transmittance,
                            float* v_means2d, float* v_ellipses, float* v_opacities, float* v_colors, float* v_absgrad, int threads) {
  using namespace raster;
  const Frame& f = *static_cast<const Frame*>(frame);
  const int size = record(f.channels);
  std::vector<std::unique_ptr<float[]>> sums(f.images);
  for (int i = 0; i < f.images; i++) sums[i].reset(new float[f.image[i].entries.size() * size]);
  by_channels(f.channels, [&](auto c) {
    Pool::run(f.images * f.tiles(), threads, [&](int task) {
      const int i = f.schedule[task] / f.tiles(), tile = f.schedule[task] % f.tiles();
      auto* call = v_absgrad ? backward_tile<decltype(c)::value, true> : backward_tile<decltype(c)::value, false>;
      call(f, i, tile, transmittance, v_image, v_transmittance, sums[i].get());
    });
  });
  const Gradients out{v_means2d, v_ellipses, v_opacities, v_colors, v_absgrad};
  const int chunks = (f.count + CHUNK - 1) / CHUNK;
  by_channels(f.channels, [&](auto c) {
    Pool::run(f.images * chunks, threads, [&](int task) {
      const int i = task / chunks, first = task % chunks * CHUNK;
      add_up<decltype(c)::value>(f, i, first, std::min(f.count, first + CHUNK), sums[i].get(), out);
    });
  });
}

}  // extern "C"

// Projection of 3D Gaussians by EWA splatting (Zwicker et al. 2001) and its gradients, in blocks the compiler vectorises.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pool.h"

namespace projection {

constexpr int BLOCK = 64;
constexpr float EXTENT = 3.33f, MIN_ALPHA = 1.0f / 255.0f;

// Loops in this form are unrolled before GCC looks for something to vectorise.
template <typename Body>
static inline __attribute__((always_inline)) void each3(Body body) {
  body(0), body(1), body(2);
}

struct View {
  float r[9], t[3], fx, fy, cx, cy, xmin, xmax, ymin, ymax;
  View(const float* m, const float* k, int width, int height)
      : r{m[0], m[1], m[2], m[4], m[5], m[6], m[8], m[9], m[10]}, t{m[3], m[7], m[11]}, fx(k[0]), fy(k[4]), cx(k[2]), cy(k[5]) {
    const float mx = 0.15f * width / fx, my = 0.15f * height / fy;
    xmin = -(cx / fx + mx), xmax = (width - cx) / fx + mx;
    ymin = -(cy / fy + my), ymax = (height - cy) / fy + my;
  }
};

// Up to BLOCK Gaussians, one array per component; lanes beyond the count repeat the first one.
struct Block {
  float mean[3][BLOCK], quat[4][BLOCK], scale[3][BLOCK];
  Block(const float* means, const float* quats, const float* scales, int count) {
    for (int l = 0; l < BLOCK; l++) {
      const int i = l < count ? l : 0;
      for (int d = 0; d < 3; d++) mean[d][l] = means[3 * i + d], scale[d][l] = scales[3 * i + d];
      for (int d = 0; d < 4; d++) quat[d][l] = quats[4 * i + d];
    }
  }
};

// What forward and backward both need of one Gaussian.
struct Footprint {
  float x, y, z, iz, slope_x, slope_y;
  float n, w, a, b, c;  // 1 / |quat| and the unit quaternion
  float R[9], J[6];     // rotation; rows of d(pixel) / d(world)
  float U[3], V[3];     // J R: pixels per standard deviation of each axis
  float uu, uv, vv, det, blurred;
};

static inline __attribute__((always_inline)) Footprint footprint(const Block& g, int l, const View& v, float eps2d) {
  Footprint f;
  const float X = g.mean[0][l], Y = g.mean[1][l], Z = g.mean[2][l];
  f.x = v.r[0] * X + v.r[1] * Y + v.r[2] * Z + v.t[0];
  f.y = v.r[3] * X + v.r[4] * Y + v.r[5] * Z + v.t[1];
  f.z = v.r[6] * X + v.r[7] * Y + v.r[8] * Z + v.t[2];
  f.iz = 1.0f / f.z;
  f.slope_x = std::min(std::max(f.x * f.iz, v.xmin), v.xmax);
  f.slope_y = std::min(std::max(f.y * f.iz, v.ymin), v.ymax);
  const float qw = g.quat[0][l], qa = g.quat[1][l], qb = g.quat[2][l], qc = g.quat[3][l];
  f.n = 1.0f / std::max(std::sqrt(qw * qw + qa * qa + qb * qb + qc * qc), 1e-12f);
  const float w = f.w = qw * f.n, a = f.a = qa * f.n, b = f.b = qb * f.n, c = f.c = qc * f.n;
  f.R[0] = 1 - 2 * (b * b + c * c), f.R[1] = 2 * (a * b - w * c), f.R[2] = 2 * (a * c + w * b);
  f.R[3] = 2 * (a * b + w * c), f.R[4] = 1 - 2 * (a * a + c * c), f.R[5] = 2 * (b * c - w * a);
  f.R[6] = 2 * (a * c - w * b), f.R[7] = 2 * (b * c + w * a), f.R[8] = 1 - 2 * (a * a + b * b);
  float u[3], q[3];
  for (int d = 0; d < 3; d++) {
    f.J[d] = v.fx * f.iz * (v.r[d] - f.slope_x * v.r[6 + d]);
    f.J[3 + d] = v.fy * f.iz * (v.r[3 + d] - f.slope_y * v.r[6 + d]);
  }
  for (int d = 0; d < 3; d++) {
    f.U[d] = f.J[0] * f.R[d] + f.J[1] * f.R[3 + d] + f.J[2] * f.R[6 + d], u[d] = f.U[d] * g.scale[d][l];
    f.V[d] = f.J[3] * f.R[d] + f.J[4] * f.R[3 + d] + f.J[5] * f.R[6 + d], q[d] = f.V[d] * g.scale[d][l];
  }
  const float uu = u[0] * u[0] + u[1] * u[1] + u[2] * u[2], vv = q[0] * q[0] + q[1] * q[1] + q[2] * q[2];
  const float k0 = u[1] * q[2] - u[2] * q[1], k1 = u[2] * q[0] - u[0] * q[2], k2 = u[0] * q[1] - u[1] * q[0];
  f.det = k0 * k0 + k1 * k1 + k2 * k2;  // of the 2x2 covariance, as |u x v|^2: no cancellation
  f.blurred = f.det + eps2d * (uu + vv) + eps2d * eps2d;
  f.uu = uu + eps2d, f.vv = vv + eps2d, f.uv = u[0] * q[0] + u[1] * q[1] + u[2] * q[2];
  return f;
}

struct Sizes {
  int scenes, cameras, count, width, height;
  float eps2d;
};

static inline bool finite(float a) { return std::fabs(a) <= 3e38f; }

static void forward(const Sizes& s, float near_plane, float far_plane, float radius_clip, bool antialiased, const float* means,
                    const float* quats, const float* scales, const float* opacities, const float* viewmats, const float* Ks,
                    int32_t* radii, float* means2d, float* depths, float* ellipses, float* compensations, int threads) {
  const int blocks = (s.count + BLOCK - 1) / BLOCK, group = 8, groups = (blocks + group - 1) / group;
  Pool::run(s.scenes * s.cameras * groups, threads, [&](int task) {
    const int image = task / groups, scene = image / s.cameras;
    const View view(viewmats + 16 * image, Ks + 9 * image, s.width, s.height);
    for (int block = task % groups * group; block < std::min(blocks, (task % groups + 1) * group); block++) {
      const int first = block * BLOCK, lanes = std::min(BLOCK, s.count - first);
      const size_t in = (size_t)scene * s.count + first, out = (size_t)image * s.count + first;
      const Block g(means + 3 * in, quats + 4 * in, scales + 3 * in, lanes);
      float x[BLOCK], y[BLOCK], z[BLOCK], a[BLOCK], k[BLOCK], q[BLOCK], comp[BLOCK], sx[BLOCK], sy[BLOCK];
      for (int l = 0; l < BLOCK; l++) {
        const Footprint f = footprint(g, l, view, s.eps2d);
        x[l] = view.fx * f.x * f.iz + view.cx, y[l] = view.fy * f.y * f.iz + view.cy, z[l] = f.z;
        q[l] = 1.0f / f.vv, a[l] = f.vv / f.blurred, k[l] = f.uv * q[l];
        comp[l] = std::sqrt(f.det / f.blurred), sx[l] = std::sqrt(f.uu), sy[l] = std::sqrt(f.vv);
      }
      for (int l = 0; l < lanes; l++) {
        const float alpha = opacities[in + l] * (antialiased ? comp[l] : 1.0f);
        const float extent = std::min(EXTENT, std::sqrt(2.0f * std::log(alpha / MIN_ALPHA)));
        const float rx = std::ceil(extent * sx[l]), ry = std::ceil(extent * sy[l]);
        // comparisons with NaN are false
        const bool drawn = z[l] >= near_plane && z[l] <= far_plane && alpha >= MIN_ALPHA && (rx > radius_clip || ry > radius_clip) &&
                           rx > 0 && ry > 0 && x[l] + rx > 0 && x[l] - rx < s.width && y[l] + ry > 0 && y[l] - ry < s.height &&
                           finite(x[l]) && finite(y[l]) && finite(a[l]) && finite(k[l]) && finite(q[l]) && finite(rx) && finite(ry) &&
                           finite(alpha);
        const size_t o = out + l;
        radii[2 * o] = drawn ? (int32_t)std::min(rx, 1073741824.0f) : 0;
        radii[2 * o + 1] = drawn ? (int32_t)std::min(ry, 1073741824.0f) : 0;
        means2d[2 * o] = drawn ? x[l] : 0, means2d[2 * o + 1] = drawn ? y[l] : 0, depths[o] = drawn ? z[l] : 0;
        ellipses[3 * o] = drawn ? a[l] : 0, ellipses[3 * o + 1] = drawn ? k[l] : 0, ellipses[3 * o + 2] = drawn ? q[l] : 0;
        compensations[o] = drawn ? comp[l] : 0;
      }
    }
  });
}

// Gradients of a block: sums over the views but for `view`, the first three rows of one view matrix.
struct Gradients {
  float mean[3][BLOCK], quat[4][BLOCK], scale[3][BLOCK], view[12][BLOCK];
};

template <bool VIEW>
static inline __attribute__((always_inline)) void footprint_backward(const Block& g, int l, const View& v, float eps2d, bool drawn,
                                                                     const float (*in)[BLOCK], Gradients& out) {
  const Footprint f = footprint(g, l, v, eps2d);
  const float gx = in[0][l], gy = in[1][l], gz = in[2][l], ga = in[3][l], gk = in[4][l], gq = in[5][l], gc = in[6][l];
  // ellipse -> covariance: 1/a = uu - uv^2/vv, s = uv/vv, q = 1/vv
  const float q = 1.0f / f.vv, a = f.vv / f.blurred, s = f.uv * q, kappa = -a * a * ga;
  float du = kappa, dm = q * gk - 2 * s * kappa, dv = s * s * kappa - q * s * gk - q * q * gq;
  // compensation: rho^2 = det / blurred
  const float rho = std::sqrt(f.det / f.blurred), half = rho > 0 ? 0.5f * gc / rho : 0.0f, ib = 1.0f / f.blurred;
  const float tr = half * ib * (1 - rho * rho), bl = half * ib * rho * rho * eps2d;  // det_orig and the trace inside blurred
  du += tr * (f.vv - eps2d) - bl, dv += tr * (f.uu - eps2d) - bl, dm -= 2 * tr * f.uv;
  float dJ[6] = {0, 0, 0, 0, 0, 0}, dR[9];
  each3([&](int d) {
    const float sc = g.scale[d][l], u = f.U[d] * sc, w = f.V[d] * sc;
    const float gu = 2 * du * u + dm * w, gw = 2 * dv * w + dm * u;
    const float gs = gu * f.U[d] + gw * f.V[d];
    out.scale[d][l] += drawn ? gs : 0.0f;
    const float gU = gu * sc, gV = gw * sc;
    each3([&](int e) {
      dR[3 * e + d] = f.J[e] * gU + f.J[3 + e] * gV;
      dJ[e] += gU * f.R[3 * e + d], dJ[3 + e] += gV * f.R[3 * e + d];
    });
  });
  const float w = f.w, x = f.a, y = f.b, z = f.c;
  const float hw = 2 * (z * (dR[3] - dR[1]) + y * (dR[2] - dR[6]) + x * (dR[7] - dR[5]));
  const float hx = 2 * (y * (dR[1] + dR[3]) + z * (dR[2] + dR[6]) + w * (dR[7] - dR[5]) - 2 * x * (dR[4] + dR[8]));
  const float hy = 2 * (x * (dR[1] + dR[3]) + z * (dR[5] + dR[7]) + w * (dR[2] - dR[6]) - 2 * y * (dR[0] + dR[8]));
  const float hz = 2 * (x * (dR[2] + dR[6]) + y * (dR[5] + dR[7]) + w * (dR[3] - dR[1]) - 2 * z * (dR[0] + dR[4]));
  const float along = hw * w + hx * x + hy * y + hz * z;
  out.quat[0][l] += drawn ? f.n * (hw - along * w) : 0.0f, out.quat[1][l] += drawn ? f.n * (hx - along * x) : 0.0f;
  out.quat[2][l] += drawn ? f.n * (hy - along * y) : 0.0f, out.quat[3][l] += drawn ? f.n * (hz - along * z) : 0.0f;
  // J rows = f/z (r_row - slope r_z)
  const float jx = v.fx * f.iz, jy = v.fy * f.iz;
  float dsx = 0, dsy = 0, dj = 0;
  each3([&](int d) {
    dsx -= jx * dJ[d] * v.r[6 + d], dsy -= jy * dJ[3 + d] * v.r[6 + d];
    dj += dJ[d] * f.J[d] + dJ[3 + d] * f.J[3 + d];
  });
  const float ux = f.x * f.iz, uy = f.y * f.iz;
  dsx = ux >= v.xmin && ux <= v.xmax ? dsx : 0.0f, dsy = uy >= v.ymin && uy <= v.ymax ? dsy : 0.0f;
  const float tx = dsx + v.fx * gx, ty = dsy + v.fy * gy;  // gradients of x/z and y/z
  const float px = drawn ? tx * f.iz : 0.0f, py = drawn ? ty * f.iz : 0.0f;
  const float pz = drawn ? gz - f.iz * (dj + tx * ux + ty * uy) : 0.0f;
  each3([&](int d) { out.mean[d][l] += v.r[d] * px + v.r[3 + d] * py + v.r[6 + d] * pz; });
  if (!VIEW) return;
  each3([&](int d) {
    out.view[d][l] = px * g.mean[d][l] + (drawn ? jx * dJ[d] : 0.0f);
    out.view[4 + d][l] = py * g.mean[d][l] + (drawn ? jy * dJ[3 + d] : 0.0f);
    out.view[8 + d][l] = pz * g.mean[d][l] - (drawn ? jx * f.slope_x * dJ[d] + jy * f.slope_y * dJ[3 + d] : 0.0f);
  });
  out.view[3][l] = px, out.view[7][l] = py, out.view[11][l] = pz;
}

static void backward(const Sizes& s, const float* means, const float* quats, const float* scales, const float* viewmats,
                     const float* Ks, const int32_t* radii, const float* v_means2d, const float* v_depths, const float* v_ellipses,
                     const float* v_compensations, float* v_means, float* v_quats, float* v_scales, float* v_viewmats, int threads) {
  const int blocks = (s.count + BLOCK - 1) / BLOCK, group = 8, groups = (blocks + group - 1) / group;
  const int images = s.scenes * s.cameras;
  std::vector<double> partial(v_viewmats ? (size_t)images * groups * 12 : 0, 0.0);
  Pool::run(s.scenes * groups, threads, [&](int task) {
    const int scene = task / groups, part = task % groups;
    for (int block = part * group; block < std::min(blocks, (part + 1) * group); block++) {
      const int first = block * BLOCK, lanes = std::min(BLOCK, s.count - first);
      const size_t in = (size_t)scene * s.count + first;
      const Block g(means + 3 * in, quats + 4 * in, scales + 3 * in, lanes);
      Gradients sum;
      memset(&sum, 0, sizeof sum);
      for (int camera = 0; camera < s.cameras; camera++) {
        const int image = scene * s.cameras + camera;
        const View view(viewmats + 16 * image, Ks + 9 * image, s.width, s.height);
        const size_t o = (size_t)image * s.count + first;
        float v[7][BLOCK];
        int32_t drawn[BLOCK];
        for (int l = 0; l < BLOCK; l++) {
          drawn[l] = l < lanes && radii[2 * (o + l)] > 0;
          const size_t i = o + (l < lanes ? l : 0);
          v[0][l] = v_means2d[2 * i], v[1][l] = v_means2d[2 * i + 1], v[2][l] = v_depths ? v_depths[i] : 0;
          for (int d = 0; d < 3; d++) v[3 + d][l] = v_ellipses[3 * i + d];
          v[6][l] = v_compensations ? v_compensations[i] : 0;
        }
        if (!v_viewmats) {
          for (int l = 0; l < BLOCK; l++) footprint_backward<false>(g, l, view, s.eps2d, drawn[l], v, sum);
          continue;
        }
        for (int l = 0; l < BLOCK; l++) footprint_backward<true>(g, l, view, s.eps2d, drawn[l], v, sum);
        for (int d = 0; d < 12; d++)
            for (int l = 0; l < lanes; l++)
            if (drawn[l]) partial[((size_t)image * groups + part) * 12 + d] += sum.view[d][l];
      }
      for (int l = 0; l < lanes; l++) {
        for (int d = 0; d < 3 && v_means; d++) v_means[3 * (in + l) + d] = sum.mean[d][l];
        for (int d = 0; d < 4 && v_quats; d++) v_quats[4 * (in + l) + d] = sum.quat[d][l];
        for (int d = 0; d < 3 && v_scales; d++) v_scales[3 * (in + l) + d] = sum.scale[d][l];
      }
    }
  });
  for (int image = 0; image < images && v_viewmats; image++)
    for (int d = 0; d < 16; d++) {
      double total = 0;  // as it stays in the last row of a view matrix, which is not read
      for (int part = 0; part < groups && d < 12; part++) total += partial[((size_t)image * groups + part) * 12 + d];
      v_viewmats[16 * image + d] = (float)total;
    }
}

}  // namespace projection

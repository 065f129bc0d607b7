// One vector of floats per instruction set: AVX-512 (16), AVX2 with FMA (8), or whatever 4 floats compile to.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace simd {

// store_sums writes the sums of the lanes of four vectors: four at once take far fewer operations than each on its own.
#if defined(__AVX512F__) || defined(__AVX2__)
static inline void store_sums(float* p, __m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
#endif

#if defined(__AVX512F__) && defined(__AVX512DQ__)

constexpr int WIDTH = 16;
using F = __m512;
using M = __mmask16;
static inline F set(float a) { return _mm512_set1_ps(a); }
static inline F load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, F a) { _mm512_storeu_ps(p, a); }
static inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
static inline F min(F a, F b) { return _mm512_min_ps(a, b); }
static inline F max(F a, F b) { return _mm512_max_ps(a, b); }
static inline F sqrt(F a) { return _mm512_sqrt_ps(a); }
static inline M ge(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
static inline M gt(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline M both(M a, M b) { return a & b; }
static inline M without(M a, M b) { return a & ~b; }
static inline bool any(M a) { return a != 0; }
static inline F keep(M m, F a) { return _mm512_maskz_mov_ps(m, a); }
static inline F select(M m, F a, F b) { return _mm512_mask_blend_ps(m, b, a); }
static inline F abs(F a) { return _mm512_abs_ps(a); }
static inline M later(const int32_t* p, int32_t j) { return _mm512_cmpgt_epi32_mask(_mm512_loadu_si512(p), _mm512_set1_epi32(j)); }
static inline void store_where(M m, int32_t* p, int32_t j) { _mm512_mask_storeu_epi32(p, m, _mm512_set1_epi32(j)); }
static inline F floor(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
static inline void store_int(int32_t* p, F a) { _mm512_storeu_si512(p, _mm512_cvttps_epi32(a)); }
static inline F scale2(F p, F, F n) { return _mm512_scalef_ps(p, n); }
static inline __m256 halved(F a) { return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)); }
static inline void store_sums(float* p, F a, F b, F c, F d) { store_sums(p, halved(a), halved(b), halved(c), halved(d)); }

#elif defined(__AVX2__) && defined(__FMA__)

constexpr int WIDTH = 8;
using F = __m256;
using M = __m256;
static inline F set(float a) { return _mm256_set1_ps(a); }
static inline F load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, F a) { _mm256_storeu_ps(p, a); }
static inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
static inline F min(F a, F b) { return _mm256_min_ps(a, b); }
static inline F max(F a, F b) { return _mm256_max_ps(a, b); }
static inline F sqrt(F a) { return _mm256_sqrt_ps(a); }
static inline M ge(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
static inline M gt(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
static inline M both(M a, M b) { return _mm256_and_ps(a, b); }
static inline M without(M a, M b) { return _mm256_andnot_ps(b, a); }
static inline bool any(M a) { return _mm256_movemask_ps(a) != 0; }
static inline F keep(M m, F a) { return _mm256_and_ps(m, a); }
static inline F select(M m, F a, F b) { return _mm256_blendv_ps(b, a, m); }
static inline F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline M later(const int32_t* p, int32_t j) {
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i*)p), _mm256_set1_epi32(j)));
}
static inline void store_where(M m, int32_t* p, int32_t j) { _mm256_maskstore_epi32(p, _mm256_castps_si256(m), _mm256_set1_epi32(j)); }
static inline F floor(F a) { return _mm256_floor_ps(a); }
static inline void store_int(int32_t* p, F a) { _mm256_storeu_si256((__m256i*)p, _mm256_cvttps_epi32(a)); }
static inline F scale2(F p, F magic, F) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(magic), 23)));
}

#else

constexpr int WIDTH = 4;
typedef float F __attribute__((vector_size(16)));
typedef int32_t M __attribute__((vector_size(16)));
static inline F set(float a) { return F{a, a, a, a}; }
static inline F load(const float* p) { F a; memcpy(&a, p, sizeof a); return a; }
static inline void store(float* p, F a) { memcpy(p, &a, sizeof a); }
static inline F fma(F a, F b, F c) { return a * b + c; }
static inline F keep(M m, F a) { return (F)(m & (M)a); }
static inline F select(M m, F a, F b) { return (F)((m & (M)a) | (~m & (M)b)); }
static inline F min(F a, F b) { return select(a < b, a, b); }
static inline F max(F a, F b) { return select(a > b, a, b); }
static inline F sqrt(F a) { return F{__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])}; }
static inline M ge(F a, F b) { return a >= b; }
static inline M gt(F a, F b) { return a > b; }
static inline M both(M a, M b) { return a & b; }
static inline M without(M a, M b) { return a & ~b; }
static inline bool any(M a) { return (a[0] | a[1] | a[2] | a[3]) != 0; }
static inline F abs(F a) { return (F)((M)a & 0x7fffffff); }
static inline M load_int(const int32_t* p) { M a; memcpy(&a, p, sizeof a); return a; }
static inline M later(const int32_t* p, int32_t j) { return load_int(p) > j; }
static inline void store_where(M m, int32_t* p, int32_t j) {
  M a = (m & j) | (~m & load_int(p));
  memcpy(p, &a, sizeof a);
}
static inline F floor(F a) {
  F whole = __builtin_convertvector(__builtin_convertvector(a, M), F);
  return whole - keep(whole > a, set(1.0f));
}
static inline void store_int(int32_t* p, F a) { M n = __builtin_convertvector(a, M); memcpy(p, &n, sizeof n); }
static inline F scale2(F p, F magic, F) { return (F)((M)p + ((M)magic << 23)); }
static inline void store_sums(float* p, F a, F b, F c, F d) {
  store(p, F{a[0], b[0], c[0], d[0]} + F{a[1], b[1], c[1], d[1]} + F{a[2], b[2], c[2], d[2]} + F{a[3], b[3], c[3], d[3]});
}

#endif

static const float LANES[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static inline F lanes() { return load(LANES); }

// 2^x for x >= -126, relative error 1e-7: x = n + f with |f| <= 1/2, a polynomial for 2^f, n into the exponent
static inline F exp2(F x) {
  const F magic = set(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, held in the lowest bits
  F shifted = x + magic, n = shifted - magic, f = x - n;
  F p = set(0.00132647273f);
  p = fma(p, f, set(0.00967151299f));
  p = fma(p, f, set(0.0555073358f));
  p = fma(p, f, set(0.240222424f));
  p = fma(p, f, set(0.693147004f));
  p = fma(p, f, set(1.0f));
  return scale2(p, shifted, n);
}

}  // namespace simd

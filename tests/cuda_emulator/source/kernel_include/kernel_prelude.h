// Defines for a host C++ compiler what NVRTC and a GPU define for a kernel. The header is precompiled, and included before every
// kernel source. Only one launch runs at a time, so plain static variables can hold the state of the current thread.
#pragma once
#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <initializer_list>
#include <type_traits>
#include <utility>

#include <vector_types.h>  // from CUDA: dim3, float2, ... and __device__ and __global__, which are empty for a host compiler
#include "kernel_abi.h"

#undef __shared__
#undef __constant__
#undef __managed__
#undef __launch_bounds__
#undef __forceinline__
#undef __grid_constant__
#define __shared__ static  // blocks run one after another
#define __constant__
#define __managed__
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#ifndef __device__
#define __device__
#define __global__
#define __host__
#endif

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;
static unsigned fk_cursor, fk_total;  // started threads of this block; all threads of this block
static void* fk_dynamic;              // dynamic shared memory
static void (*fk_wait)(int kind);
static unsigned long long fk_exchange[1024];

static inline bool fk_next_thread() {
  unsigned i = fk_cursor;
  if (i >= fk_total) return false;
  fk_cursor = i + 1;
  if (i == 0) {
    threadIdx.x = threadIdx.y = threadIdx.z = 0;
  } else if (blockDim.y == 1 && blockDim.z == 1) {
    threadIdx.x = i;
  } else {
    threadIdx.x = i % blockDim.x;
    threadIdx.y = i / blockDim.x % blockDim.y;
    threadIdx.z = i / (blockDim.x * blockDim.y);
  }
  return true;
}

static inline unsigned fk_linear() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

static __attribute__((noinline)) void fk_barrier(int kind) {
  const uint3 thread = threadIdx, block = blockIdx;
  fk_wait(kind);
  threadIdx = thread;
  blockIdx = block;
}

static inline void __syncthreads() { fk_barrier(FK_BLOCK); }
static inline void __syncwarp(unsigned = ~0u) { fk_barrier(FK_WARP); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}

static inline int fk_vote(int predicate, int kind, int what) {  // what: 0 = and, 1 = or, 2 = count, 3 = ballot
  const unsigned me = fk_linear();
  fk_exchange[me] = predicate != 0;
  fk_barrier(kind);
  const unsigned from = kind == FK_WARP ? me / 32 * 32 : 0, n = blockDim.x * blockDim.y * blockDim.z;
  const unsigned to = kind == FK_WARP && from + 32 < n ? from + 32 : n;
  unsigned count = 0, ballot = 0;
  for (unsigned i = from; i < to; i++) {
    count += fk_exchange[i];
    if (kind == FK_WARP) ballot |= (unsigned)fk_exchange[i] << (i - from);
  }
  fk_barrier(kind);
  return what == 0 ? count == to - from : what == 1 ? count != 0 : what == 2 ? count : ballot;
}
static inline int __syncthreads_and(int p) { return fk_vote(p, FK_BLOCK, 0); }
static inline int __syncthreads_or(int p) { return fk_vote(p, FK_BLOCK, 1); }
static inline int __syncthreads_count(int p) { return fk_vote(p, FK_BLOCK, 2); }
static inline int __all_sync(unsigned, int p) { return fk_vote(p, FK_WARP, 0); }
static inline int __any_sync(unsigned, int p) { return fk_vote(p, FK_WARP, 1); }
static inline unsigned __ballot_sync(unsigned, int p) { return fk_vote(p, FK_WARP, 3); }
static inline unsigned __activemask() { return ~0u; }

template <class T> static inline T fk_shuffle(T value, unsigned source) {
  static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
  const unsigned n = blockDim.x * blockDim.y * blockDim.z;
  memcpy(&fk_exchange[fk_linear()], &value, sizeof(T));
  fk_barrier(FK_WARP);
  T got = value;
  if (source < n) memcpy(&got, &fk_exchange[source], sizeof(T));
  fk_barrier(FK_WARP);
  return got;
}
template <class T> static inline T __shfl_sync(unsigned, T v, int lane, int width = 32) {
  const unsigned me = fk_linear();
  return fk_shuffle(v, me / width * width + lane % width);
}
template <class T> static inline T __shfl_down_sync(unsigned, T v, unsigned by, int width = 32) {
  const unsigned me = fk_linear();
  return fk_shuffle(v, me % width + by < (unsigned)width ? me + by : me);
}
template <class T> static inline T __shfl_up_sync(unsigned, T v, unsigned by, int width = 32) {
  const unsigned me = fk_linear();
  return fk_shuffle(v, me % width >= by ? me - by : me);
}
template <class T> static inline T __shfl_xor_sync(unsigned, T v, int mask, int width = 32) {
  const unsigned me = fk_linear(), to = me ^ mask;
  return fk_shuffle(v, to / width == me / width ? to : me);
}

// Bits
template <class To, class From> static inline To fk_bits(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}
static inline int __float_as_int(float x) { return fk_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return fk_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return fk_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return fk_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return fk_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return fk_bits<double>(x); }
static inline int __double2hiint(double x) { return (int)(fk_bits<long long>(x) >> 32); }
static inline int __double2loint(double x) { return (int)fk_bits<long long>(x); }
static inline double __hiloint2double(int hi, int lo) { return fk_bits<double>((long long)hi << 32 | (unsigned)lo); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
  return y;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
static inline int __mulhi(int a, int b) { return (long long)a * b >> 32; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned __int128)a * b >> 64;
}

// Arithmetic. CUDA's min and max accept mixed types, and return the number if the other argument is NaN
template <class A, class B> using fk_both = typename std::enable_if<
    std::is_arithmetic<A>::value && std::is_arithmetic<B>::value, typename std::common_type<A, B>::type>::type;
template <class A, class B> static inline fk_both<A, B> min(A a, B b) {
  using C = fk_both<A, B>;
  const C x = a, y = b;
  if constexpr (std::is_floating_point<C>::value) return std::is_same<C, float>::value ? (C)fminf(x, y) : (C)fmin(x, y);
  else return y < x ? y : x;
}
template <class A, class B> static inline fk_both<A, B> max(A a, B b) {
  using C = fk_both<A, B>;
  const C x = a, y = b;
  if constexpr (std::is_floating_point<C>::value) return std::is_same<C, float>::value ? (C)fmaxf(x, y) : (C)fmax(x, y);
  else return x < y ? y : x;
}
static inline float rsqrtf(float x) { return (float)(1 / sqrt((double)x)); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline double rcbrt(double x) { return 1 / cbrt(x); }
static inline float rcbrt(float x) { return 1 / cbrtf(x); }
static inline double sinpi(double x) { return sin(M_PI * fmod(x, 2)); }
static inline double cospi(double x) { return cos(M_PI * fmod(x, 2)); }
static inline float sinpi(float x) { return (float)sinpi((double)x); }
static inline float cospi(float x) { return (float)cospi((double)x); }
static inline float exp10(float x) { return exp10f(x); }
#define __expf expf
#define __logf logf
#define __sinf sinf
#define __cosf cosf
#define __powf powf  // because the C library declares functions with these names
static inline float __fdividef(float x, float y) { return x / y; }
static inline float fdividef(float x, float y) { return x / y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frcp_rn(float x) { return 1 / x; }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
static inline double normcdf(double x) { return 0.5 * erfc(-x / M_SQRT2); }
static inline float normcdf(float x) { return (float)normcdf((double)x); }
static double erfinv(double y) {
  if (!(fabs(y) < 1)) return fabs(y) == 1 ? copysign(INFINITY, y) : NAN;
  const double l = log1p(-y * y), k = 2 / (M_PI * 0.147) + l / 2;
  double x = copysign(sqrt(sqrt(k * k - l / 0.147) - k), y);  // Winitzki's formula, followed by Newton's steps
  for (int i = 0; i < 4 && x; i++) {
    const double error = fabs(y) > 0.5 ? copysign(erfc(-copysign(fabs(x), -1) ) - (1 - fabs(y)), -y) : erf(x) - y;
    x -= error / (M_2_SQRTPI * exp(-x * x));
  }
  return x;
}
static inline float erfinv(float y) { return (float)erfinv((double)y); }
static inline double erfcinv(double y) { return erfinv(1 - y); }
static inline double normcdfinv(double p) { return M_SQRT2 * erfinv(2 * p - 1); }
static inline float normcdfinv(float p) { return (float)normcdfinv((double)p); }
template <class T> static inline T __ldg(const T* p) { return *p; }
static inline long long clock64() { return 0; }
static inline long long clock() { return 0; }

// Atomics, which need no protection because no other thread runs at the same time
template <class T, class F> static inline T fk_atomic(T* p, F f) {
  const T old = *p;
  *p = f(old);
  return old;
}
#define FK_ATOMIC(T)                                                                                             \
  static inline T atomicAdd(T* p, T v) { return fk_atomic(p, [=](T o) { return (T)(o + v); }); }                  \
  static inline T atomicExch(T* p, T v) { return fk_atomic(p, [=](T) { return v; }); }
#define FK_ATOMIC_INT(T)                                                                                         \
  static inline T atomicSub(T* p, T v) { return fk_atomic(p, [=](T o) { return (T)(o - v); }); }                  \
  static inline T atomicMin(T* p, T v) { return fk_atomic(p, [=](T o) { return v < o ? v : o; }); }               \
  static inline T atomicMax(T* p, T v) { return fk_atomic(p, [=](T o) { return o < v ? v : o; }); }               \
  static inline T atomicAnd(T* p, T v) { return fk_atomic(p, [=](T o) { return (T)(o & v); }); }                  \
  static inline T atomicOr(T* p, T v) { return fk_atomic(p, [=](T o) { return (T)(o | v); }); }                   \
  static inline T atomicXor(T* p, T v) { return fk_atomic(p, [=](T o) { return (T)(o ^ v); }); }                  \
  static inline T atomicCAS(T* p, T c, T v) { return fk_atomic(p, [=](T o) { return o == c ? v : o; }); }
FK_ATOMIC(int) FK_ATOMIC(unsigned) FK_ATOMIC(unsigned long long) FK_ATOMIC(float) FK_ATOMIC(double)
FK_ATOMIC_INT(int) FK_ATOMIC_INT(unsigned) FK_ATOMIC_INT(unsigned long long)
static inline unsigned short atomicCAS(unsigned short* p, unsigned short c, unsigned short v) {
  return fk_atomic(p, [=](unsigned short o) { return o == c ? v : o; });
}
static inline unsigned atomicInc(unsigned* p, unsigned n) {
  return fk_atomic(p, [=](unsigned o) { return o >= n ? 0 : o + 1; });
}
static inline unsigned atomicDec(unsigned* p, unsigned n) {
  return fk_atomic(p, [=](unsigned o) { return o == 0 || o > n ? n : o - 1; });
}

// The table of kernels that the loader reads
template <class T, class = void> struct fk_is_array : std::false_type {};
template <class T> struct fk_is_array<T, std::void_t<typename T::iterator, decltype(T::c_contiguous)>> : std::true_type {};
template <class T> constexpr int fk_kind() {
  return std::is_pointer<T>::value ? FK_POINTER : fk_is_array<T>::value ? FK_CARRAY : FK_VALUE;
}
template <auto F> struct fk_kernel;
template <class... A, void (*F)(A...)> struct fk_kernel<F> {
  template <size_t... I> static void call(void** p, std::index_sequence<I...>) {
    while (fk_next_thread()) F(*(typename std::remove_cv<A>::type*)p[I]...);
  }
  static void loop(void** p) { call(p, std::index_sequence_for<A...>()); }
  static FkParam params[sizeof...(A) + 1];
};
template <class... A, void (*F)(A...)>
FkParam fk_kernel<F>::params[sizeof...(A) + 1] = {{sizeof(A), fk_kind<typename std::remove_cv<A>::type>()}..., {0, -1}};
#define FK_ENTRY(name, ...) {name, fk_kernel<&__VA_ARGS__>::loop, fk_kernel<&__VA_ARGS__>::params}
#define FK_EXPORT extern "C" __attribute__((visibility("default"), externally_visible, used))
#define FK_MODULE(flags, ...)                                                                                           \
  static FkKernel fk_kernels[] = {__VA_ARGS__ {nullptr, nullptr, nullptr}};                                      \
  FK_EXPORT FkModule fk_module = {FK_ABI, flags, &blockIdx, &blockDim, &gridDim, &fk_cursor, &fk_total, &fk_dynamic, &fk_wait, fk_kernels};

#ifdef FK_WITH_CUPY
#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
#define __CUDACC_VER_MAJOR__ 13  // otherwise the header assumes that half-precision functions are built in
#include <cupy/float16.cuh>
#undef __CUDACC_VER_MAJOR__
#endif

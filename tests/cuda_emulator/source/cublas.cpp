// The functions of cuBLAS that array libraries call, as plain loops. The others are stubs that print their names; see build.py.
#include "core.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <complex>
#include <set>

typedef int Status;
enum { NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { R32F = 0, R64F = 1, R16F = 2, C32F = 4, C64F = 5, R16BF = 14 };  // cudaDataType_t
enum { COMPUTE_16F = 64, COMPUTE_32F = 68, COMPUTE_64F = 70 };
typedef std::complex<float> cfloat;
typedef std::complex<double> cdouble;
struct bfloat { unsigned short bits; };

struct Handle { void* stream = nullptr; int pointer_mode = 0, math_mode = 0, device = 0; void* workspace = nullptr; };
static std::set<Handle*> handles;
typedef std::lock_guard<std::recursive_mutex> Guard;
#define ENTER                        \
  Guard guard(fk::lock);             \
  Handle* h = (Handle*)handle;       \
  if (!handles.count(h)) return NOT_INITIALIZED;

static int status_of(int error) { return error ? EXECUTION_FAILED : 0; }

FK_API Status cublasCreate_v2(void** out) {
  Guard guard(fk::lock);
  Handle* h = new Handle;
  h->device = fk::current_device();
  handles.insert(h);
  *out = h;
  return 0;
}
FK_API Status cublasDestroy_v2(void* handle) { ENTER; handles.erase(h); delete h; return 0; }
FK_API Status cublasGetVersion_v2(void*, int* v) { *v = 130200; return 0; }
FK_API Status cublasSetStream_v2(void* handle, void* s) { ENTER; if (!fk::valid_stream(s)) return INVALID_VALUE; h->stream = s; h->workspace = nullptr; return 0; }
FK_API Status cublasGetStream_v2(void* handle, void** s) { ENTER; *s = h->stream; return 0; }
FK_API Status cublasSetWorkspace_v2(void* handle, void* p, size_t n) {
  ENTER;
  if (n && (((size_t)p & 255) || fk::device_bytes(p) < n)) return INVALID_VALUE;
  h->workspace = p;
  return 0;
}
FK_API Status cublasSetPointerMode_v2(void* handle, int m) { ENTER; h->pointer_mode = m; return 0; }
FK_API Status cublasGetPointerMode_v2(void* handle, int* m) { ENTER; *m = h->pointer_mode; return 0; }
FK_API Status cublasSetMathMode(void* handle, int m) { ENTER; h->math_mode = m; return 0; }
FK_API Status cublasGetMathMode(void* handle, int* m) { ENTER; *m = h->math_mode; return 0; }

static size_t bytes_of(int type) {
  switch (type) { case R32F: return 4; case R64F: case C32F: return 8; case R16F: case R16BF: return 2; case C64F: return 16; }
  return 0;
}
template <class T> T conjugate(T x) { return x; }
template <class T> std::complex<T> conjugate(std::complex<T> x) { return std::conj(x); }
template <class C> C load(const void* p, int type, size_t i) {
  if constexpr (std::is_same<C, cfloat>::value || std::is_same<C, cdouble>::value) {
    if (type == C32F) return C(((const cfloat*)p)[i]);
    if (type == C64F) return C(((const cdouble*)p)[i]);
  } else {
    if (type == R32F) return (C)((const float*)p)[i];
    if (type == R64F) return (C)((const double*)p)[i];
    if (type == R16F) return (C)(float)((const _Float16*)p)[i];
    if (type == R16BF) {
      const unsigned bits = (unsigned)((const unsigned short*)p)[i] << 16;
      float x;
      memcpy(&x, &bits, 4);
      return (C)x;
    }
  }
  return C(0);
}
template <class C> void store(void* p, int type, size_t i, C x) {
  if constexpr (std::is_same<C, cfloat>::value || std::is_same<C, cdouble>::value) {
    if (type == C32F) ((cfloat*)p)[i] = cfloat(x);
    if (type == C64F) ((cdouble*)p)[i] = cdouble(x);
  } else {
    if (type == R32F) ((float*)p)[i] = (float)x;
    if (type == R64F) ((double*)p)[i] = (double)x;
    if (type == R16F) ((_Float16*)p)[i] = (_Float16)x;
    if (type == R16BF) {
      const float y = (float)x;
      unsigned bits;
      memcpy(&bits, &y, 4);
      ((unsigned short*)p)[i] = y != y ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }
  }
}

struct Matrix { const void* p; int type, ld; };
struct Shape { int ta, tb, m, n, k; };

// C = alpha op(A) op(B) + beta C, with matrices stored by columns
template <class T> void multiply(const Shape& s, T alpha, Matrix a, Matrix b, T beta, Matrix c) {
  static thread_local std::vector<T> left, sum;
  left.resize((size_t)s.m * s.k);
  sum.resize(s.m);
  for (int p = 0; p < s.k; p++)
    for (int i = 0; i < s.m; i++) {
      const T x = load<T>(a.p, a.type, s.ta ? (size_t)i * a.ld + p : (size_t)p * a.ld + i);
      left[(size_t)p * s.m + i] = s.ta == 2 ? conjugate(x) : x;
    }
  for (int j = 0; j < s.n; j++) {
    std::fill(sum.begin(), sum.end(), T(0));
    T* total = sum.data();
    for (int p = 0; p < s.k; p++) {
      T y = load<T>(b.p, b.type, s.tb ? (size_t)p * b.ld + j : (size_t)j * b.ld + p);
      if (s.tb == 2) y = conjugate(y);
      const T* column = left.data() + (size_t)p * s.m;
      for (int i = 0; i < s.m; i++) total[i] += y * column[i];
    }
    for (int i = 0; i < s.m; i++) {
      const size_t at = (size_t)j * c.ld + i;
      T x = alpha * total[i];
      if (beta != T(0)) x += beta * load<T>(c.p, c.type, at);
      store<T>((void*)c.p, c.type, at, x);
    }
  }
}

static int reaches(const char* which, Matrix m, int rows, int columns) {
  if (!rows || !columns) return 0;
  const size_t need = ((size_t)(columns - 1) * m.ld + rows) * bytes_of(m.type);
  return fk::device_bytes(m.p) >= need ? 0 : fk::complain(700, "cuBLAS: the whole matrix must be in device memory. Received: matrix %s at %p", which, m.p);
}
template <class T>
int checked_multiply(const Shape& s, T alpha, Matrix a, Matrix b, T beta, Matrix c) {
  if (int e = reaches("A", a, s.ta ? s.k : s.m, s.ta ? s.m : s.k)) return e;
  if (int e = reaches("B", b, s.tb ? s.n : s.k, s.tb ? s.k : s.n)) return e;
  if (int e = reaches("C", c, s.m, s.n)) return e;
  multiply<T>(s, alpha, a, b, beta, c);
  return 0;
}
static bool sound(const Shape& s, int lda, int ldb, int ldc) {
  return s.m >= 0 && s.n >= 0 && s.k >= 0 && s.ta >= 0 && s.ta <= 2 && s.tb >= 0 && s.tb <= 2 &&
         lda >= std::max(1, s.ta ? s.k : s.m) && ldb >= std::max(1, s.tb ? s.n : s.k) && ldc >= std::max(1, s.m);
}
// Returns the three addresses of product number i. It is called when the product is computed.
typedef std::function<void(int, const void**, const void**, const void**)> Places;
template <class T>
Status gemm(Handle* h, const Shape& s, const void* alpha, Matrix a, Matrix b, const void* beta, Matrix c, int count, Places places) {
  if (!sound(s, a.ld, b.ld, c.ld) || count < 0) return INVALID_VALUE;
  if (h->device != fk::current_device()) return fk::complain(INVALID_VALUE, "cuBLAS: the handle must belong to the current device. Received: a handle of another device");
  T one{}, two{};
  const bool on_device = h->pointer_mode;
  if (!on_device) { memcpy((void*)&one, alpha, sizeof one); memcpy((void*)&two, beta, sizeof two); }
  return status_of(fk::submit(h->stream, "cublas gemm", [=] {
    T x = one, y = two;
    if (on_device) { memcpy((void*)&x, alpha, sizeof x); memcpy((void*)&y, beta, sizeof y); }
    for (int i = 0; i < count; i++) {
      Matrix ma = a, mb = b, mc = c;
      places(i, &ma.p, &mb.p, &mc.p);
      if (int e = checked_multiply<T>(s, x, ma, mb, y, mc)) return e;
    }
    fk::counts.products++;
    return 0;
  }));
}
static Places strided(Matrix a, long long sa, Matrix b, long long sb, Matrix c, long long sc) {
  return [=](int i, const void** pa, const void** pb, const void** pc) {
    *pa = (const char*)a.p + i * sa * (long long)bytes_of(a.type);
    *pb = (const char*)b.p + i * sb * (long long)bytes_of(b.type);
    *pc = (const char*)c.p + i * sc * (long long)bytes_of(c.type);
  };
}
static Places listed(const void* const* a, const void* const* b, void* const* c) {
  return [=](int i, const void** pa, const void** pb, const void** pc) { *pa = a[i]; *pb = b[i]; *pc = c[i]; };
}
static Status any_gemm(Handle* h, Shape s, const void* alpha, Matrix a, Matrix b, const void* beta, Matrix c, int compute, int count, Places places) {
  const bool complex_ = c.type == C32F || c.type == C64F;
  const bool wide = c.type == R64F || c.type == C64F;
  if (a.type != b.type || !bytes_of(a.type) || !bytes_of(c.type)) return NOT_SUPPORTED;
  if (wide != (compute == COMPUTE_64F || compute == COMPUTE_64F + 1)) return NOT_SUPPORTED;
  if ((wide || complex_) && a.type != c.type) return NOT_SUPPORTED;
  if (a.type == R32F && c.type != R32F) return NOT_SUPPORTED;
  if (a.type == R64F && c.type != R64F) return NOT_SUPPORTED;
  if (compute == COMPUTE_16F || compute == COMPUTE_16F + 1) return NOT_SUPPORTED;
  if (complex_) return wide ? gemm<cdouble>(h, s, alpha, a, b, beta, c, count, places) : gemm<cfloat>(h, s, alpha, a, b, beta, c, count, places);
  return wide ? gemm<double>(h, s, alpha, a, b, beta, c, count, places) : gemm<float>(h, s, alpha, a, b, beta, c, count, places);
}

FK_API Status cublasGemmEx(void* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda,
                           const void* b, int type_b, int ldb, const void* beta, void* c, int type_c, int ldc, int compute, int) {
  ENTER;
  Matrix x{a, type_a, lda}, y{b, type_b, ldb}, z{c, type_c, ldc};
  return any_gemm(h, {ta, tb, m, n, k}, alpha, x, y, beta, z, compute, 1, strided(x, 0, y, 0, z, 0));
}
FK_API Status cublasSgemmEx(void* handle, int ta, int tb, int m, int n, int k, const float* alpha, const void* a, int type_a, int lda,
                            const void* b, int type_b, int ldb, const float* beta, void* c, int type_c, int ldc) {
  return cublasGemmEx(handle, ta, tb, m, n, k, alpha, a, type_a, lda, b, type_b, ldb, beta, c, type_c, ldc, COMPUTE_32F, -1);
}
FK_API Status cublasGemmStridedBatchedEx(void* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int type_a,
                                         int lda, long long sa, const void* b, int type_b, int ldb, long long sb, const void* beta,
                                         void* c, int type_c, int ldc, long long sc, int count, int compute, int) {
  ENTER;
  Matrix x{a, type_a, lda}, y{b, type_b, ldb}, z{c, type_c, ldc};
  return any_gemm(h, {ta, tb, m, n, k}, alpha, x, y, beta, z, compute, count, strided(x, sa, y, sb, z, sc));
}
#define GEMMS(L, T, TYPE)                                                                                                      \
  FK_API Status cublas##L##gemm_v2(void* handle, int ta, int tb, int m, int n, int k, const T* alpha, const T* a, int lda,     \
                                   const T* b, int ldb, const T* beta, T* c, int ldc) {                                        \
    ENTER;                                                                                                                     \
    Matrix x{a, TYPE, lda}, y{b, TYPE, ldb}, z{c, TYPE, ldc};                                                                  \
    return gemm<T>(h, {ta, tb, m, n, k}, alpha, x, y, beta, z, 1, strided(x, 0, y, 0, z, 0));                                  \
  }                                                                                                                            \
  FK_API Status cublas##L##gemmStridedBatched(void* handle, int ta, int tb, int m, int n, int k, const T* alpha, const T* a,   \
                                              int lda, long long sa, const T* b, int ldb, long long sb, const T* beta, T* c,   \
                                              int ldc, long long sc, int count) {                                              \
    ENTER;                                                                                                                     \
    Matrix x{a, TYPE, lda}, y{b, TYPE, ldb}, z{c, TYPE, ldc};                                                                  \
    return gemm<T>(h, {ta, tb, m, n, k}, alpha, x, y, beta, z, count, strided(x, sa, y, sb, z, sc));                           \
  }                                                                                                                            \
  FK_API Status cublas##L##gemmBatched(void* handle, int ta, int tb, int m, int n, int k, const T* alpha, const T* const* a,   \
                                       int lda, const T* const* b, int ldb, const T* beta, T* const* c, int ldc, int count) {  \
    ENTER;                                                                                                                     \
    for (const void* list : {(const void*)a, (const void*)b, (const void*)c})                                                  \
      if (count && fk::device_bytes(list) < count * sizeof(void*))                                                             \
        return fk::complain(EXECUTION_FAILED, "gemmBatched: the list of addresses must be in device memory");                 \
    Matrix x{nullptr, TYPE, lda}, y{nullptr, TYPE, ldb}, z{nullptr, TYPE, ldc};                                                \
    return gemm<T>(h, {ta, tb, m, n, k}, alpha, x, y, beta, z, count,                                                          \
                   listed((const void* const*)a, (const void* const*)b, (void* const*)c));                                     \
  }
GEMMS(S, float, R32F)
GEMMS(D, double, R64F)
GEMMS(C, cfloat, C32F)
GEMMS(Z, cdouble, C64F)

#define VECTORS(L, T)                                                                                                          \
  FK_API Status cublas##L##dot_v2(void* handle, int n, const T* x, int ix, const T* y, int iy, T* out) {                       \
    ENTER;                                                                                                                     \
    return status_of(fk::submit(h->stream, "cublas dot", [=] {                                                                 \
      T sum = 0;                                                                                                               \
      for (int i = 0; i < n; i++) sum += x[(long)i * ix] * y[(long)i * iy];                                                    \
      *out = sum;                                                                                                              \
      return 0;                                                                                                                \
    }));                                                                                                                       \
  }                                                                                                                            \
  FK_API Status cublas##L##nrm2_v2(void* handle, int n, const T* x, int ix, T* out) {                                          \
    ENTER;                                                                                                                     \
    return status_of(fk::submit(h->stream, "cublas nrm2", [=] {                                                                \
      T sum = 0;                                                                                                               \
      for (int i = 0; i < n; i++) sum += x[(long)i * ix] * x[(long)i * ix];                                                    \
      *out = std::sqrt(sum);                                                                                                   \
      return 0;                                                                                                                \
    }));                                                                                                                       \
  }
VECTORS(S, float)
VECTORS(D, double)

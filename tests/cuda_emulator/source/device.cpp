// CUDA's runtime API: errors, devices and their attributes.
#include "runtime.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

long long fk::setting(const char* name, long long otherwise) {
  const char* text = getenv(name);
  return text && *text ? atoll(text) : otherwise;
}

// ---------------------------------------------------------------------- devices and errors

const int fk::DEVICES = (int)setting("FAKECUDA_DEVICES", 1);
const size_t fk::MEMORY = (size_t)setting("FAKECUDA_MEMORY_MB", 8192) << 20;
const bool fk::LAZY = setting("FAKECUDA_LAZY", 0);
static const bool QUIET = setting("FAKECUDA_QUIET", 0);
static const bool PEERS = setting("FAKECUDA_PEERS", 0);
thread_local int fk::device = 0, fk::last_error = 0;
std::recursive_mutex fk::lock;
fk::Counts fk::counts{};
FK_API fk::Counts fk_counts() { return counts; }

static const struct { int code; const char *name, *text; } ERRORS[] = {
    {0, "cudaSuccess", "no error"},
    {1, "cudaErrorInvalidValue", "invalid argument"},
    {2, "cudaErrorMemoryAllocation", "out of memory"},
    {35, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {100, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {101, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {200, "cudaErrorInvalidKernelImage", "device kernel image is invalid"},
    {217, "cudaErrorPeerAccessUnsupported", "peer access is not supported between these two devices"},
    {400, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {401, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {500, "cudaErrorSymbolNotFound", "named symbol not found"},
    {600, "cudaErrorNotReady", "device not ready"},
    {700, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {704, "cudaErrorPeerAccessAlreadyEnabled", "peer access is already enabled"},
    {705, "cudaErrorPeerAccessNotEnabled", "peer access has not been enabled"},
    {719, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {720, "cudaErrorCooperativeLaunchTooLarge", "too many blocks in cooperative launch"},
    {801, "cudaErrorNotSupported", "operation not supported"},
    {900, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {901, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {903, "cudaErrorStreamCaptureUnmatched", "capture was not initiated in this stream"},
    {904, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {905, "cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"},
    {906, "cudaErrorStreamCaptureImplicit", "operation would make the legacy stream depend on a capturing blocking stream"},
    {907, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
    {908, "cudaErrorStreamCaptureWrongThread", "attempt to terminate a thread-local capture sequence from another thread"},
};

int fk::complain(int error, const char* format, ...) {
  if (QUIET) return error;
  va_list list;
  va_start(list, format);
  fprintf(stderr, "fakecuda: ");
  vfprintf(stderr, format, list);
  fprintf(stderr, "\n");
  va_end(list);
  return error;
}
int fk::current_device() { return device; }

cudaError_t fk::done(int error) {
  if (error) last_error = error;
  return (cudaError_t)error;
}
FK_API const char* cudaGetErrorName(cudaError_t error) {
  for (auto& e : ERRORS) if (e.code == error) return e.name;
  return "cudaErrorUnknown";
}
FK_API const char* cudaGetErrorString(cudaError_t error) {
  for (auto& e : ERRORS) if (e.code == error) return e.text;
  return "unknown error";
}
FK_API cudaError_t cudaGetLastError() { const int e = last_error; last_error = 0; return (cudaError_t)e; }
FK_API cudaError_t cudaPeekAtLastError() { return (cudaError_t)last_error; }
FK_API cudaError_t cudaDriverGetVersion(int* v) { *v = 13020; return cudaSuccess; }
FK_API cudaError_t cudaRuntimeGetVersion(int* v) { *v = 13020; return cudaSuccess; }
FK_API cudaError_t cudaGetDeviceCount(int* n) { *n = DEVICES; return done(DEVICES ? 0 : 100); }
FK_API cudaError_t cudaGetDevice(int* d) { if (!DEVICES) return done(100); *d = device; return cudaSuccess; }
FK_API cudaError_t cudaSetDevice(int d) {
  if (d < 0 || d >= DEVICES) return done(101);
  device = d;
  return cudaSuccess;
}
FK_API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int d) {
  if (d < 0 || d >= DEVICES) return done(101);
  switch ((int)attribute) {
    case 1: case 2: case 3: *value = 1024; break;  // threads in a block, along x, along y
    case 4: *value = 64; break;
    case 5: *value = 0x7fffffff; break;
    case 6: case 7: *value = 65535; break;
    case 8: *value = 48 << 10; break;
    case 9: *value = 64 << 10; break;
    case 10: *value = 32; break;  // threads in a warp
    case 13: *value = 1000000; break;
    case 16: *value = 4; break;  // multiprocessors
    case 39: *value = 2048; break;
    case 41: *value = 1; break;  // unified addresses
    case 75: *value = 9; break;  // compute capability 9.0
    case 76: *value = 0; break;
    case 95: *value = 1; break;  // cooperative launches
    case 97: *value = 227 << 10; break;
    default: *value = 0;
  }
  return cudaSuccess;
}
FK_API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int d) {
  if (d < 0 || d >= DEVICES) return done(101);
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "CPU emulation of CUDA");
  snprintf(p->uuid.bytes, sizeof p->uuid.bytes, "emulated-%d", d);
  p->totalGlobalMem = MEMORY;
  p->sharedMemPerBlock = 48 << 10;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 0x7fffffff;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->major = 9;
  p->multiProcessorCount = 4;
  p->maxThreadsPerMultiProcessor = 2048;
  return cudaSuccess;
}

// FAKECUDA_PEERS=1: a device may use the memory of another device after access has been enabled
static std::set<std::pair<int, int>> peers;
bool fk::reaches_peer(int from, int to) { return peers.count({from, to}); }
FK_API cudaError_t cudaDeviceCanAccessPeer(int* can, int from, int to) {
  if (from < 0 || from >= DEVICES || to < 0 || to >= DEVICES) return done(101);
  *can = PEERS && from != to;
  return cudaSuccess;
}
FK_API cudaError_t cudaDeviceEnablePeerAccess(int to, unsigned) {
  LOCK;
  if (to < 0 || to >= DEVICES || to == device) return done(101);
  if (!PEERS) return done(217);
  return done(peers.insert({device, to}).second ? 0 : 704);
}
FK_API cudaError_t cudaDeviceDisablePeerAccess(int to) {
  LOCK;
  return done(peers.erase({device, to}) ? 0 : 705);
}
FK_API cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit) { *value = 0; return cudaSuccess; }
FK_API cudaError_t cudaDeviceSetLimit(cudaLimit, size_t) { return cudaSuccess; }
FK_API cudaError_t cudaDeviceGetPCIBusId(char* text, int n, int d) { snprintf(text, n, "0000:%02x:00", d); return cudaSuccess; }
FK_API cudaError_t cudaDeviceGetByPCIBusId(int* d, const char* text) { *d = (int)strtol(text + 5, nullptr, 16); return cudaSuccess; }
FK_API cudaError_t cudaProfilerStart() { return cudaSuccess; }
FK_API cudaError_t cudaProfilerStop() { return cudaSuccess; }

// CUDA's runtime API: memory and copies.
#include "runtime.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

// Each device has a separate range of addresses. A block ends where an inaccessible page begins. A freed block becomes
// inaccessible, and its addresses are never used again. An allocation beyond the end of the range fails.

static const size_t RANGE = 1ull << 38;
static char* const BASE = (char*)0x300000000000ull;
struct Device { char* next = nullptr; size_t used = 0; std::map<char*, size_t> blocks; };
static std::vector<Device> devices;
static std::map<char*, size_t> pinned;  // host memory that kernels may use

static Device& device_state(int d) {
  if (devices.empty()) {
    devices.resize(DEVICES);
    for (int i = 0; i < DEVICES; i++) {
      char* at = (char*)mmap(BASE + i * RANGE, RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (at == MAP_FAILED) { perror("fakecuda: mmap"); abort(); }
      devices[i].next = at;
    }
  }
  return devices[d];
}
static size_t within(const std::map<char*, size_t>& blocks, const void* p) {
  auto it = blocks.upper_bound((char*)p);
  if (it == blocks.begin()) return 0;
  --it;
  const size_t offset = (char*)p - it->first;
  return offset < it->second ? it->second - offset : 0;
}
int fk::device_of(const void* p) {
  for (int i = 0; i < (int)devices.size(); i++) {
    const char* start = BASE + i * RANGE;
    if ((char*)p >= start && (char*)p < start + RANGE) return i;
  }
  return -1;
}
size_t fk::device_bytes(const void* p) {
  const int d = device_of(p);
  if (d < 0) return within(pinned, p);
  return d == device || reaches_peer(device, d) ? within(devices[d].blocks, p) : 0;
}

static int allocate(void** out, size_t size) {
  if (!size) { *out = nullptr; return 0; }
  size = (size + 511) / 512 * 512;
  Device& d = device_state(device);
  const size_t pages = (size + PAGE - 1) / PAGE * PAGE;
  if (d.used + size > MEMORY) return 2;
  char* range_end = BASE + device * RANGE + RANGE;
  if (d.next + pages + 2 * PAGE > range_end) return complain(2, "the device's range of addresses is used up");
  char* at = d.next + pages - size;  // the block ends at the inaccessible page
  if (mprotect(d.next, pages, PROT_READ | PROT_WRITE)) return complain(2, "mprotect failed, perhaps because of too many blocks");
  memset(at, 0xff, size);  // NaN, -1
  d.next += pages + PAGE;
  d.used += size;
  d.blocks[at] = size;
  *out = at;
  return 0;
}
static int release(void* p) {
  if (!p) return 0;
  const int n = device_of(p);
  if (n < 0 || !devices[n].blocks.count((char*)p)) return complain(1, "cudaFree needs the address of a block. Received: %p", p);
  Device& d = devices[n];
  const size_t size = d.blocks[(char*)p];
  char* start = (char*)((size_t)p / PAGE * PAGE);
  const size_t pages = (size + PAGE - 1) / PAGE * PAGE;
  madvise(start, pages, MADV_DONTNEED);
  mprotect(start, pages, PROT_NONE);
  d.used -= size;
  d.blocks.erase((char*)p);
  return 0;
}

FK_API cudaError_t cudaMalloc(void** p, size_t size) {
  LOCK;
  if (int e = unsafe_while_capturing()) return done(e);
  return done(allocate(p, size));
}
FK_API cudaError_t cudaFree(void* p) {
  LOCK;
  if (int e = unsafe_while_capturing()) return done(e);
  const int error = drain_all();
  return done(p && error ? error : release(p));
}
FK_API cudaError_t cudaHostAlloc(void** p, size_t size, unsigned) {
  LOCK;
  if (int e = unsafe_while_capturing()) return done(e);
  if (posix_memalign(p, 4096, size ? size : 1)) return done(2);
  pinned[(char*)*p] = size;
  return cudaSuccess;
}
FK_API cudaError_t cudaFreeHost(void* p) { LOCK; pinned.erase((char*)p); free(p); return cudaSuccess; }
FK_API cudaError_t cudaMallocManaged(void** p, size_t size, unsigned) { return cudaHostAlloc(p, size, 0); }
FK_API cudaError_t cudaHostRegister(void* p, size_t size, unsigned) { LOCK; pinned[(char*)p] = size; return cudaSuccess; }
FK_API cudaError_t cudaHostUnregister(void* p) { LOCK; pinned.erase((char*)p); return cudaSuccess; }
FK_API cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  LOCK;
  *total = MEMORY;
  *free = MEMORY - device_state(device).used;
  return cudaSuccess;
}
FK_API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  LOCK;
  memset(a, 0, sizeof *a);
  const int d = device_of(p);
  if (d >= 0 && within(devices[d].blocks, p)) {
    a->type = cudaMemoryTypeDevice;
    a->device = d;
    a->devicePointer = (void*)p;
  } else if (within(pinned, p)) {
    a->type = cudaMemoryTypeHost;
    a->device = device;
    a->devicePointer = a->hostPointer = (void*)p;
  } else {
    a->type = cudaMemoryTypeUnregistered;
    a->device = -2;
    a->hostPointer = (void*)p;
  }
  return cudaSuccess;
}

// ---------------------------------------------------------------------- copies

static int check_side(const char* what, const void* p, size_t n, bool on_device) {
  const int d = device_of(p);
  if (!on_device) return d < 0 ? 0 : complain(1, "%s must be in host memory. Received: %p in device memory", what, p);
  if (d < 0 && within(pinned, p) >= n) return 0;
  if (d < 0) return complain(1, "%s must be in device memory. Received: %p in host memory", what, p);
  return within(devices[d].blocks, p) >= n ? 0 : complain(700, "%s must be inside one block. Received: %zu bytes at %p", what, n, p);
}
static int copy(void* to, const void* from, size_t n, cudaMemcpyKind kind) {
  if (!n) return 0;
  const bool to_device = kind == cudaMemcpyDefault ? device_of(to) >= 0 : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDefault ? device_of(from) >= 0 : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (int e = check_side("a copy's destination", to, n, to_device)) return e;
  if (int e = check_side("a copy's source", from, n, from_device)) return e;
  memmove(to, from, n);
  if (to_device && !from_device) counts.uploads++, counts.upload_bytes += n;
  if (from_device && !to_device) counts.downloads++, counts.download_bytes += n;
  if (from_device && to_device) counts.moves++;
  return 0;
}
FK_API cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind kind) {
  LOCK;
  if (int e = unsafe_while_capturing()) return done(e);
  return done(submit_and_wait("copy", [=] { return copy(to, from, n, kind); }));
}
FK_API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t s) {
  LOCK;
  const bool to_pageable = device_of(to) < 0 && !within(pinned, to);
  if (LAZY && !capturing(s)) {  // pageable memory is read immediately, and written before this call returns
    if (device_of(from) < 0 && !within(pinned, from)) {
      if (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice) return done(copy(to, from, n, kind));
      auto kept = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + n);
      return done(submit(s, "copy", [=] { return copy(to, kept->data(), n, cudaMemcpyHostToDevice); }));
    }
    if (to_pageable) {
      if (int e = synchronize(find(s))) return done(e);
      return done(copy(to, from, n, kind));
    }
  }
  return done(submit(s, "copy", [=] { return copy(to, from, n, kind); }));
}
FK_API cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t n, cudaStream_t s) {
  return cudaMemcpyAsync(to, from, n, cudaMemcpyDeviceToDevice, s);
}
FK_API cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t n) {
  return cudaMemcpy(to, from, n, cudaMemcpyDeviceToDevice);
}
FK_API cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t s) {
  LOCK;
  return done(submit(s, "copy", [=] {
    for (size_t i = 0; i < height; i++)
      if (int e = copy((char*)to + i * to_pitch, (const char*)from + i * from_pitch, width, kind)) return e;
    return 0;
  }));
}
FK_API cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind) {
  LOCK;
  if (int e = cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, height, kind, nullptr)) return (cudaError_t)e;
  return done(synchronize(find(nullptr)));
}
FK_API cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t s) {
  LOCK;
  return done(submit(s, "memset", [=] {
    if (!n) return 0;
    if (int e = check_side("memset", p, n, true)) return e;
    memset(p, value, n);
    return 0;
  }));
}
FK_API cudaError_t cudaMemset(void* p, int value, size_t n) { return cudaMemsetAsync(p, value, n, nullptr); }

// Declarations that only the parts of libcudart share.
#pragma once
#include <stdlib.h>

#include <map>
#include <set>

#include "core.h"
#include "kernel_include/kernel_abi.h"

#define LOCK std::lock_guard<std::recursive_mutex> guard(fk::lock)

namespace fk {
// device.cpp
long long setting(const char* name, long long otherwise);  // reads an environment variable
extern const int DEVICES;
extern const size_t MEMORY;
extern const bool LAZY;  // streams run as late as CUDA allows, at the next call that must wait for them
extern thread_local int device, last_error;
cudaError_t done(int error);  // stores the error for cudaGetLastError
bool reaches_peer(int from, int to);

// memory.cpp
static const size_t PAGE = 4096;
int device_of(const void* p);  // -1 if the address is not in a device's range
size_t device_used(int d);

// stream.cpp
struct Capture {
  std::vector<Node> nodes;
  Stream* origin;
  cudaStreamCaptureMode mode;
  pthread_t thread;
  bool invalid = false, ended = false;
  std::set<Stream*> streams, joined;
};
extern std::set<Stream*> streams;  // streams that the program created
bool is_legacy(Stream* s);
bool exists(Stream* s);
Stream* find(void* handle);  // null if the stream does not exist
int refuse(Stream* s, int error);  // invalidates the capture
int unsafe_while_capturing();  // called by functions that may synchronize: invalidates a capture that forbids them
int legacy_while_capturing();  // the legacy stream waits for all streams except non-blocking ones
void run_first(Stream* s);
int drain_all();
int synchronize(Stream* s);
int submit_and_wait(const char* what, std::function<int()> f);  // for calls without a stream

// kernel.cpp
struct Function { FkModule* module; FkKernel* kernel; std::vector<FkParam> params; int dynamic_limit = 48 << 10; };
static const unsigned RESIDENT = 4 * 2048;  // threads on all multiprocessors
int launch(Function* f, std::vector<unsigned> size, unsigned shared, void* stream, void** arguments, bool cooperative);
}  // namespace fk
using namespace fk;

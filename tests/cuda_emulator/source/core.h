// Shared by the emulated libraries: device memory, streams, captures.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#define FK_API extern "C" __attribute__((visibility("default")))

#pragma GCC visibility push(default)
namespace fk {
struct Capture;
struct Node {
  std::string what;
  std::function<int()> run;
  unsigned long long number = 0;  // in the order of the calls
};
struct Stream {
  unsigned flags = 0;
  int priority = 0, device = 0;
  std::shared_ptr<Capture> capture;
  std::deque<Node> queue;  // not yet run, see FAKECUDA_LAZY
  int error = 0;           // of what was run since the last synchronization
};
extern std::recursive_mutex lock;  // held by every entry: one thing at a time

// Do it now or, while the stream captures, note it. `f` returns a cudaError_t.
int submit(void* stream, const char* what, std::function<int()> f);
bool capturing(void* stream);
bool valid_stream(void* stream);
// Of an address in memory that a kernel may use: the bytes from there to the end of its block, else 0
size_t device_bytes(const void* p);
int complain(int error, const char* format, ...);  // says on stderr what is wrong, returns the error
int current_device();
struct Counts { unsigned long long launches, products, uploads, upload_bytes, downloads, download_bytes, moves, waits; };
extern Counts counts;  // of what was done so far in this process
}  // namespace fk
#pragma GCC visibility pop

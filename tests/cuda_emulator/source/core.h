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
  unsigned long long number = 0;  // numbers follow the order of the calls
};
struct Stream {
  unsigned flags = 0;
  int priority = 0, device = 0;
  std::shared_ptr<Capture> capture;
  std::deque<Node> queue;  // work that has not run yet; see FAKECUDA_LAZY
  int error = 0;           // the first error since the last synchronization
};
extern std::recursive_mutex lock;  // every API function holds it, so they run one at a time

// Run `f` now or later or, if the stream captures, add it to the capture. `f` returns a cudaError_t.
int submit(void* stream, const char* what, std::function<int()> f);
bool capturing(void* stream);
bool valid_stream(void* stream);
// Returns the number of bytes from an address to the end of its block, or 0 if a kernel cannot use this memory
size_t device_bytes(const void* p);
int complain(int error, const char* format, ...);  // prints a message to stderr and returns the error
int current_device();
struct Counts { unsigned long long launches, products, uploads, upload_bytes, downloads, download_bytes, moves, waits; };
extern Counts counts;  // the work so far in this process
}  // namespace fk
#pragma GCC visibility pop

// A fake of NCCL, which moves bytes between processes of one machine over Unix sockets, as work on the emulated streams.
//
// It has what CuPy's bindings need for communicators of several processes, send, recv and allGather; the rest are stubs.
// Unlike NCCL, it ends with an error if a peer is gone or sends another number of bytes than expected.
#include "core.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>

enum Result { SUCCESS = 0, CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
struct UniqueId { char name[128]; };  // what the names of the sockets begin with
struct Peer { int rank, device; };
struct Communicator { int rank, size, device; std::vector<int> sockets; };  // -1 for this rank
struct Transfer {  // a message has a header with its length
  Communicator* communicator;
  bool sends;
  int peer;
  char* data;
  size_t bytes, done = 0;
  uint64_t header = bytes;
  bool ended() const { return done == sizeof header + bytes; }
};
static const size_t WIDTHS[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};  // of NCCL's data types
static thread_local int depth = 0;
static thread_local std::vector<Transfer> group;
static thread_local void* group_stream = nullptr;

FK_API const char* ncclGetErrorString(int error) {
  static const char* texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error",
                                "invalid argument", "invalid usage"};
  return error >= 0 && error < 6 ? texts[error] : "not emulated";
}
FK_API int ncclGetVersion(int* version) { *version = 22707; return SUCCESS; }
FK_API int ncclGetUniqueId(UniqueId* id) {
  memset(id, 0, sizeof *id);
  unsigned long long random[2];
  if (getrandom(random, sizeof random, 0) != sizeof random) return SYSTEM_ERROR;
  snprintf(id->name, sizeof id->name, "fakenccl-%llx%llx", random[0], random[1]);
  return SUCCESS;
}

// ---------------------------------------------------------------------- communicators

static socklen_t address(sockaddr_un* out, const UniqueId& id, int rank) {  // of Linux's abstract sockets, which are not files
  memset(out, 0, sizeof *out);
  out->sun_family = AF_UNIX;
  return offsetof(sockaddr_un, sun_path) + 1 + snprintf(out->sun_path + 1, 100, "%.80s-%d", id.name, rank);
}
static int reach(const UniqueId& id, int rank) {  // waits until this rank listens, as NCCL does
  sockaddr_un to;
  const socklen_t size = address(&to, id, rank);
  for (;; usleep(5000)) {
    const int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || !connect(s, (sockaddr*)&to, size)) return s;
    close(s);
  }
}
static bool introduce(Communicator* c, int s) {
  Peer own{c->rank, c->device}, other;
  if (s < 0 || send(s, &own, sizeof own, MSG_NOSIGNAL) != sizeof own) return false;
  if (recv(s, &other, sizeof other, MSG_WAITALL) != sizeof other) return false;
  if (other.device == c->device) {
    fk::complain(INVALID_USAGE, "ncclCommInitRank: ranks %d and %d use the same device, %d", c->rank, other.rank, c->device);
    return false;
  }
  c->sockets[other.rank] = s;
  return true;
}
FK_API int ncclCommInitRankConfig(Communicator** out, int size, UniqueId id, int rank, void*) {
  if (size < 1 || rank < 0 || rank >= size) return INVALID_ARGUMENT;
  const char* fails = getenv("FAKECUDA_NCCL_FAILS");
  if (fails && atoi(fails) == rank) return SYSTEM_ERROR;
  Communicator* c = new Communicator{rank, size, fk::current_device(), std::vector<int>(size, -1)};
  sockaddr_un own;
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, (sockaddr*)&own, address(&own, id, rank)) || listen(listener, size)) return SYSTEM_ERROR;
  bool fine = true;
  for (int peer = 0; peer < rank && fine; peer++) fine = introduce(c, reach(id, peer));
  for (int peer = rank + 1; peer < size && fine; peer++) fine = introduce(c, accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  close(listener);
  if (!fine) return INVALID_USAGE;
  *out = c;
  return SUCCESS;
}
FK_API int ncclCommDestroy(Communicator* c) {
  for (int s : c->sockets) if (s >= 0) close(s);
  delete c;
  return SUCCESS;
}
FK_API int ncclCommAbort(Communicator* c) { return ncclCommDestroy(c); }
FK_API int ncclCommCount(const Communicator* c, int* size) { *size = c->size; return SUCCESS; }
FK_API int ncclCommUserRank(const Communicator* c, int* rank) { *rank = c->rank; return SUCCESS; }
FK_API int ncclCommCuDevice(const Communicator* c, int* device) { *device = c->device; return SUCCESS; }
FK_API int ncclCommGetAsyncError(Communicator*, int* error) { *error = SUCCESS; return SUCCESS; }

// ---------------------------------------------------------------------- messages

static int advance(Transfer& t, bool& moved) {  // returns a cudaError_t
  const bool in_header = t.done < sizeof t.header;
  char* data = in_header ? (char*)&t.header + t.done : t.data + t.done - sizeof t.header;
  const size_t left = in_header ? sizeof t.header - t.done : t.bytes + sizeof t.header - t.done;
  const int s = t.communicator->sockets[t.peer];
  const ssize_t n = t.sends ? send(s, data, left, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(s, data, left, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return 0;
  if (n <= 0) return fk::complain(999, "NCCL: rank %d is gone", t.peer);
  t.done += n;
  moved = true;
  if (t.done == sizeof t.header && t.header != t.bytes)
    return fk::complain(999, "NCCL: rank %d must send %zu bytes. Received: %zu", t.peer, t.bytes, (size_t)t.header);
  return 0;
}
static int exchange(std::vector<Transfer> transfers) {
  for (Transfer& t : transfers)
    if (fk::device_bytes(t.data) < t.bytes)
      return fk::complain(700, "NCCL: %zu bytes at %p must be memory of this device", t.bytes, t.data);
  for (Transfer& from : transfers)  // of this rank to itself
    for (Transfer& to : transfers)
      if (from.sends && !to.sends && from.peer == from.communicator->rank && to.peer == from.peer && !from.done && !to.done) {
        if (from.bytes != to.bytes) return fk::complain(999, "NCCL: a rank sends itself %zu of %zu bytes", from.bytes, to.bytes);
        memmove(to.data, from.data, to.bytes);
        from.done = to.done = sizeof from.header + from.bytes;
      }
  for (;;) {
    bool moved = false;
    std::vector<pollfd> waits;
    std::vector<std::pair<int, bool>> busy;  // messages between two ranks arrive in the order of the calls
    for (Transfer& t : transfers) {
      const std::pair<int, bool> channel{t.peer, t.sends};
      if (t.ended() || std::find(busy.begin(), busy.end(), channel) != busy.end()) continue;
      if (t.peer == t.communicator->rank) return fk::complain(999, "NCCL: a rank must also receive what it sends to itself");
      if (int error = advance(t, moved)) return error;
      busy.push_back(channel);
      waits.push_back({t.communicator->sockets[t.peer], (short)(t.sends ? POLLOUT : POLLIN), 0});
    }
    if (waits.empty()) return 0;
    if (!moved) poll(waits.data(), waits.size(), -1);
  }
}
FK_API int ncclGroupStart() { depth++; return SUCCESS; }
FK_API int ncclGroupEnd() {
  if (!depth) return INVALID_USAGE;
  if (--depth) return SUCCESS;
  std::lock_guard<std::recursive_mutex> guard(fk::lock);
  const std::vector<Transfer> transfers = std::move(group);
  group.clear();
  return fk::submit(group_stream, "NCCL", [transfers] { return exchange(transfers); }) ? CUDA_ERROR : SUCCESS;
}
static int add(Communicator* c, bool sends, const void* data, size_t count, int type, int peer, void* stream) {
  if (!c || type < 0 || type > 9 || peer < 0 || peer >= c->size) return INVALID_ARGUMENT;
  ncclGroupStart();
  group.push_back({c, sends, peer, (char*)data, count * WIDTHS[type]});
  group_stream = stream;
  return ncclGroupEnd();
}
FK_API int ncclSend(const void* data, size_t count, int type, int peer, Communicator* c, void* stream) {
  return add(c, true, data, count, type, peer, stream);
}
FK_API int ncclRecv(void* data, size_t count, int type, int peer, Communicator* c, void* stream) {
  return add(c, false, data, count, type, peer, stream);
}
FK_API int ncclAllGather(const void* from, void* to, size_t count, int type, Communicator* c, void* stream) {
  if (!c || type < 0 || type > 9) return INVALID_ARGUMENT;
  ncclGroupStart();
  int error = 0;
  for (int peer = 0; peer < c->size && !error; peer++) {
    error = ncclSend(from, count, type, peer, c, stream);
    if (!error) error = ncclRecv((char*)to + peer * count * WIDTHS[type], count, type, peer, c, stream);
  }
  const int ended = ncclGroupEnd();
  return error ? error : ended;
}

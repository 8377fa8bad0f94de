// CUDA's runtime API: streams and events.
#include "runtime.h"

#include <time.h>
#include <algorithm>

struct Mark { bool done = false, asked = false; timespec time{}; };  // a point in a stream that an event recorded
struct Event {
  unsigned flags = 0;
  std::shared_ptr<Mark> mark;
  std::shared_ptr<Capture> capture;
  Stream* from = nullptr;
};
std::set<Stream*> fk::streams;
static std::set<Event*> events;
static std::vector<Stream> legacies, per_threads;  // one for each device

bool fk::is_legacy(Stream* s) { return s >= legacies.data() && s < legacies.data() + legacies.size(); }
bool fk::exists(Stream* s) {
  return streams.count(s) || is_legacy(s) || (s >= per_threads.data() && s < per_threads.data() + per_threads.size());
}
Stream* fk::find(void* handle) {
  if (legacies.empty()) {
    legacies.resize(DEVICES);
    per_threads.resize(DEVICES);
    for (int i = 0; i < DEVICES; i++) legacies[i].device = per_threads[i].device = i;
  }
  if (!handle || handle == (void*)1) return &legacies[device];
  if (handle == (void*)2) return &per_threads[device];
  Stream* s = (Stream*)handle;
  return streams.count(s) ? s : nullptr;
}
bool fk::valid_stream(void* s) { return find(s); }
bool fk::capturing(void* handle) { Stream* s = find(handle); return s && s->capture; }

int fk::refuse(Stream* s, int error) {
  s->capture->invalid = true;
  return error;
}
int fk::unsafe_while_capturing() {
  for (Stream* s : streams)
    if (s->capture && s->capture->mode != cudaStreamCaptureModeRelaxed &&
        (s->capture->mode == cudaStreamCaptureModeGlobal || pthread_equal(s->capture->thread, pthread_self())))
      return refuse(s, 900);
  return 0;
}
int fk::legacy_while_capturing() {
  for (Stream* s : streams)
    if (s->capture && !(s->flags & cudaStreamNonBlocking) && s->device == device) return refuse(s, 906);
  return 0;
}
static void run_before(Stream* s, unsigned long long number) {
  while (!s->queue.empty() && s->queue.front().number < number) run_first(s);
}
void fk::run_first(Stream* s) {
  Node node = std::move(s->queue.front());
  s->queue.pop_front();
  if (is_legacy(s)) {  // the legacy stream and the blocking streams wait for each other
    for (Stream* other : streams)
      if (other->device == s->device && !(other->flags & cudaStreamNonBlocking)) run_before(other, node.number);
  } else if (!(s->flags & cudaStreamNonBlocking)) {
    run_before(&legacies[s->device], node.number);
  }
  const int here = device;
  device = s->device;
  const int error = node.run();
  device = here;
  if (error && !s->error) s->error = fk::complain(error, "this error belongs to \"%s\", which ran only now", node.what.c_str());
}
static int drain(Stream* s) {
  while (!s->queue.empty()) run_first(s);
  const int error = s->error;
  s->error = 0;
  return error;
}
int fk::drain_all() {
  find(nullptr);
  int error = drain(&legacies[device]);
  if (int e = drain(&per_threads[device])) error = e;
  for (Stream* s : streams)
    if (s->device == device)
      if (int e = drain(s)) error = e;
  return error;
}
static void reach(Stream* from, const std::shared_ptr<Mark>& mark) {
  if (exists(from))
    while (!mark->done && !from->queue.empty()) run_first(from);
}
int fk::submit(void* handle, const char* what, std::function<int()> f) {
  static unsigned long long calls = 0;
  Stream* s = find(handle);
  if (!s) return complain(400, "%s needs an existing stream. Received: an unknown stream", what);
  if (is_legacy(s)) if (int e = legacy_while_capturing()) return e;
  if (s->capture) {
    if (s->capture->invalid) return 901;
    s->capture->nodes.push_back({what, std::move(f)});
    return 0;
  }
  if (!LAZY) return f();
  s->queue.push_back({what, std::move(f), ++calls});
  return 0;
}
int fk::synchronize(Stream* s) {
  if (!s) return 400;
  if (is_legacy(s)) if (int e = legacy_while_capturing()) return e;
  if (s->capture) return refuse(s, 900);
  if (is_legacy(s))
    for (Stream* other : streams)
      if (other->device == s->device && !(other->flags & cudaStreamNonBlocking))
        if (int e = drain(other)) return e;
  return drain(s);
}
int fk::submit_and_wait(const char* what, std::function<int()> f) {
  if (int e = fk::submit(nullptr, what, f)) return e;
  return LAZY ? synchronize(find(nullptr)) : 0;
}

static cudaError_t make_stream(cudaStream_t* out, unsigned flags, int priority) {
  LOCK;
  Stream* s = new Stream;
  s->flags = flags;
  s->priority = priority;
  s->device = device;
  streams.insert(s);
  *out = (cudaStream_t)s;
  return cudaSuccess;
}
FK_API cudaError_t cudaStreamCreate(cudaStream_t* s) { return make_stream(s, 0, 0); }
FK_API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) { return make_stream(s, flags, 0); }
FK_API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned flags, int p) { return make_stream(s, flags, p); }
FK_API cudaError_t cudaStreamGetFlags(cudaStream_t h, unsigned* f) { LOCK; Stream* s = find(h); if (!s) return done(400); *f = s->flags; return cudaSuccess; }
FK_API cudaError_t cudaStreamGetPriority(cudaStream_t h, int* p) { LOCK; Stream* s = find(h); if (!s) return done(400); *p = s->priority; return cudaSuccess; }
FK_API cudaError_t cudaStreamDestroy(cudaStream_t h) {
  LOCK;
  if (!streams.count((Stream*)h)) return done(400);
  drain((Stream*)h);
  streams.erase((Stream*)h);
  delete (Stream*)h;
  return cudaSuccess;
}
FK_API cudaError_t cudaStreamSynchronize(cudaStream_t h) { LOCK; counts.waits++; return done(synchronize(find(h))); }
FK_API cudaError_t cudaStreamQuery(cudaStream_t h) { LOCK; return done(synchronize(find(h))); }
FK_API cudaError_t cudaDeviceSynchronize() {
  LOCK;
  for (Stream* s : streams) if (s->capture && s->device == device) return done(refuse(s, 900));
  counts.waits++;
  return done(drain_all());
}

FK_API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags) {
  LOCK;
  Event* e = new Event;
  e->flags = flags;
  events.insert(e);
  *out = (cudaEvent_t)e;
  return cudaSuccess;
}
FK_API cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }
FK_API cudaError_t cudaEventDestroy(cudaEvent_t e) { LOCK; if (!events.erase((Event*)e)) return done(400); delete (Event*)e; return cudaSuccess; }
FK_API cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t h) {
  LOCK;
  Event* e = (Event*)handle;
  Stream* s = find(h);
  if (!events.count(e) || !s) return done(400);
  if (is_legacy(s)) if (int error = legacy_while_capturing()) return done(error);
  e->capture = s->capture;
  e->from = s;
  auto mark = e->mark = std::make_shared<Mark>();
  if (s->capture) return cudaSuccess;
  return done(fk::submit(h, "event", [mark] {
    mark->done = true;
    clock_gettime(CLOCK_MONOTONIC, &mark->time);
    return 0;
  }));
}
FK_API cudaError_t cudaStreamWaitEvent(cudaStream_t h, cudaEvent_t handle, unsigned) {
  LOCK;
  Event* e = (Event*)handle;
  Stream* s = find(h);
  if (!events.count(e) || !s) return done(400);
  if (!e->mark) return cudaSuccess;
  if (s->capture && !e->capture) return done(refuse(s, 905));
  if (!e->capture) return done(fk::submit(h, "wait", [from = e->from, mark = e->mark] { reach(from, mark); return 0; }));
  if (is_legacy(s)) { e->capture->invalid = true; return done(906); }
  if (s->capture && s->capture != e->capture) return done(refuse(s, 900));
  e->capture->streams.insert(s);
  s->capture = e->capture;
  e->capture->joined.insert(e->from);  // `s` now waits for its work
  e->capture->joined.erase(s);
  return cudaSuccess;
}
static int event_wait(Event* e) {
  if (!events.count(e)) return 400;
  if (e->mark && !e->capture) reach(e->from, e->mark);
  if (!e->capture || e->capture->ended) return 0;
  e->capture->invalid = true;
  return 907;
}
FK_API cudaError_t cudaEventQuery(cudaEvent_t handle) {
  LOCK;
  Event* e = (Event*)handle;
  if (LAZY && events.count(e) && e->mark && !e->capture && !e->mark->done && !e->mark->asked) {
    e->mark->asked = true;  // the next query completes the work
    return cudaErrorNotReady;
  }
  return done(event_wait(e));
}
FK_API cudaError_t cudaEventSynchronize(cudaEvent_t e) { LOCK; counts.waits++; return done(event_wait((Event*)e)); }
FK_API cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  LOCK;
  Event *x = (Event*)a, *y = (Event*)b;
  if (!events.count(x) || !events.count(y) || !x->mark || !y->mark) return done(400);
  if (!x->mark->done || !y->mark->done) return done(600);
  *ms = (y->mark->time.tv_sec - x->mark->time.tv_sec) * 1e3f + (y->mark->time.tv_nsec - x->mark->time.tv_nsec) * 1e-6f;
  return cudaSuccess;
}
FK_API cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void* data) {
  LOCK;
  return done(fk::submit(s, "host function", [=] { f(data); return 0; }));
}
FK_API cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t f, void* data, unsigned) {
  LOCK;
  if (fk::capturing(s)) return done(refuse(find(s), 900));
  f(s, cudaSuccess, data);
  return cudaSuccess;
}

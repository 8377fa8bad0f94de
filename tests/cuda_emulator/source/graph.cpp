// CUDA's runtime API: captures, and graphs that run the captured work.
#include "runtime.h"

#include <stdio.h>

struct Graph { std::shared_ptr<std::vector<Node>> nodes; };
static std::set<Graph*> graphs, executables;

FK_API cudaError_t cudaStreamBeginCapture(cudaStream_t h, cudaStreamCaptureMode mode) {
  LOCK;
  Stream* s = find(h);
  if (!s) return done(400);
  if (is_legacy(s)) return done(900);
  if (s->capture) return done(401);
  s->capture = std::make_shared<Capture>();
  s->capture->origin = s;
  s->capture->mode = mode;
  s->capture->thread = pthread_self();
  s->capture->streams.insert(s);
  return cudaSuccess;
}
FK_API cudaError_t cudaStreamEndCapture(cudaStream_t h, cudaGraph_t* out) {
  LOCK;
  Stream* s = find(h);
  *out = nullptr;
  if (!s) return done(400);
  if (!s->capture) return done(401);
  auto capture = s->capture;
  if (capture->origin != s) return done(refuse(s, 903));
  if (capture->mode != cudaStreamCaptureModeRelaxed && !pthread_equal(capture->thread, pthread_self())) return done(908);
  int error = capture->invalid ? 901 : 0;
  capture->ended = true;
  for (Stream* other : capture->streams) {
    if (other != s && !capture->joined.count(other) && !error) error = 904;
    if (streams.count(other) || exists(other)) other->capture.reset();
  }
  if (error) return done(error);
  Graph* g = new Graph{std::make_shared<std::vector<Node>>(capture->nodes)};
  graphs.insert(g);
  *out = (cudaGraph_t)g;
  return cudaSuccess;
}
FK_API cudaError_t cudaStreamIsCapturing(cudaStream_t h, cudaStreamCaptureStatus* status) {
  LOCK;
  Stream* s = find(h);
  if (!s) return done(400);
  *status = cudaStreamCaptureStatusNone;
  if (is_legacy(s)) {
    for (Stream* other : streams)
      if (other->capture && !(other->flags & cudaStreamNonBlocking) && other->device == device) return done(906);
  } else if (s->capture) {
    *status = s->capture->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  }
  return cudaSuccess;
}
FK_API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t g, unsigned long long) {
  LOCK;
  if (!graphs.count((Graph*)g)) return done(1);
  Graph* e = new Graph(*(Graph*)g);
  executables.insert(e);
  *out = (cudaGraphExec_t)e;
  return cudaSuccess;
}
FK_API cudaError_t cudaGraphLaunch(cudaGraphExec_t h, cudaStream_t s) {
  LOCK;
  Graph* g = (Graph*)h;
  if (!executables.count(g)) return done(1);
  return done(fk::submit(s, "graph", [nodes = g->nodes] {
    for (auto& node : *nodes)
      if (int e = node.run()) return fk::complain(e, "a graph failed in its node \"%s\"", node.what.c_str());
    return 0;
  }));
}
FK_API cudaError_t cudaGraphUpload(cudaGraphExec_t h, cudaStream_t) { LOCK; return done(executables.count((Graph*)h) ? 0 : 1); }
FK_API cudaError_t cudaGraphDestroy(cudaGraph_t g) { LOCK; if (!graphs.erase((Graph*)g)) return done(1); delete (Graph*)g; return cudaSuccess; }
FK_API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { LOCK; if (!executables.erase((Graph*)g)) return done(1); delete (Graph*)g; return cudaSuccess; }
FK_API cudaError_t cudaGraphDebugDotPrint(cudaGraph_t g, const char* path, unsigned) {
  LOCK;
  if (!graphs.count((Graph*)g)) return done(1);
  FILE* f = fopen(path, "w");
  if (!f) return done(1);
  fprintf(f, "digraph {\n");
  for (auto& n : *((Graph*)g)->nodes) fprintf(f, "\"%s\"\n", n.what.c_str());
  fprintf(f, "}\n");
  fclose(f);
  return cudaSuccess;
}


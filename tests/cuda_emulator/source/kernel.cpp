// Kernel launches.
#include "runtime.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xmmintrin.h>
#include <algorithm>

// A fiber runs the threads of a block one after another until a thread waits. Then the next fiber continues with the other
// threads. A kernel without barriers is therefore one loop on one fiber.

extern "C" void fk_switch(void** save, void* load);
asm(R"(
.text
.globl fk_switch
.hidden fk_switch
.type fk_switch, @function
fk_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fk_switch, .-fk_switch
)");

struct Fiber { void* stack_pointer; int wait; bool finished; };
static const size_t STACK = 256 << 10;
static std::vector<Fiber*> idle;
static Fiber* running;
static void* scheduler;
static void (*job)(void**);
static void** job_arguments;

static void fiber_main() {
  for (;;) {
    job(job_arguments);
    running->finished = true;
    fk_switch(&running->stack_pointer, scheduler);
  }
}
static Fiber* new_fiber() {
  if (!idle.empty()) { Fiber* f = idle.back(); idle.pop_back(); return f; }
  char* stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) abort();
  mprotect(stack, PAGE, PROT_NONE);
  void** top = (void**)(stack + STACK) - 2;  // at entry, the stack pointer must be 8 more than a multiple of 16
  *--top = nullptr;
  *--top = (void*)fiber_main;
  for (int i = 0; i < 6; i++) *--top = nullptr;
  return new Fiber{top, 0, false};
}
static void resume(Fiber* f) {
  running = f;
  fk_switch(&scheduler, f->stack_pointer);
}
static void wait_here(int kind) {
  running->wait = kind;
  fk_switch(&running->stack_pointer, scheduler);
}
static const int ORDER = (int)setting("FAKECUDA_ORDER", 0);  // 1: blocks, and threads after a barrier, run in reverse order
typedef std::vector<Fiber*> Fibers;
static Fibers start_block(FkModule* m) {  // returns the fibers that wait
  Fibers waiting;
  *m->cursor = 0;
  while (*m->cursor < *m->total) {
    Fiber* f = new_fiber();
    f->finished = false;
    resume(f);
    (f->finished ? idle : waiting).push_back(f);
  }
  return waiting;
}
static int next_barrier(const Fibers& waiting) {  // the barriers of warps come first, and the grid's last
  int kind = FK_GRID;
  for (Fiber* f : waiting) kind = std::min(kind, f->wait);
  return kind;
}
static void pass_barrier(Fibers& waiting) {
  const int kind = next_barrier(waiting);
  if (ORDER == 1) std::reverse(waiting.begin(), waiting.end());
  Fibers still;
  for (Fiber* f : waiting) {
    if (f->wait == kind) resume(f);
    (f->finished ? idle : still).push_back(f);
  }
  if (ORDER == 1) std::reverse(still.begin(), still.end());
  waiting.swap(still);
}
struct Index { unsigned x, y, z; };
static void run_grid(FkModule* m, const unsigned* size, bool cooperative) {
  std::vector<Fibers> blocks;  // the waiting blocks of a cooperative launch, in which all blocks are active
  const unsigned long long count = (unsigned long long)size[0] * size[1] * size[2];
  for (unsigned long long n = 0; n < count; n++) {
    const unsigned long long i = ORDER == 1 ? count - 1 - n : n;
    *(Index*)m->block_index = {(unsigned)(i % size[0]), (unsigned)(i / size[0] % size[1]), (unsigned)(i / size[0] / size[1])};
    Fibers waiting = start_block(m);
    while (!waiting.empty() && !(cooperative && next_barrier(waiting) == FK_GRID)) pass_barrier(waiting);
    if (!waiting.empty()) blocks.push_back(std::move(waiting));
  }
  while (!blocks.empty()) {
    for (Fibers& waiting : blocks) {
      do pass_barrier(waiting);
      while (!waiting.empty() && next_barrier(waiting) != FK_GRID);
    }
    blocks.erase(std::remove_if(blocks.begin(), blocks.end(), [](const Fibers& f) { return f.empty(); }), blocks.end());
  }
}

static thread_local sigjmp_buf* rescue = nullptr;
static thread_local void* fault = nullptr;
static struct sigaction old_segv, old_fpe, old_bus;
static void on_signal(int number, siginfo_t* info, void* context) {
  if (rescue) {
    fault = info->si_addr;
    siglongjmp(*rescue, number);  // do nothing else here, because the signal stack may be small
  }
  static bool passed_on = false;  // the previous handler may call this one again
  struct sigaction& old = number == SIGSEGV ? old_segv : number == SIGFPE ? old_fpe : old_bus;
  static const char text[] = "fakecuda: the host accessed device memory that is not allocated\n";
  if (device_of(info->si_addr) >= 0 && write(2, text, sizeof text - 1)) {}
  if (!passed_on) {
    passed_on = true;
    if (old.sa_flags & SA_SIGINFO) return old.sa_sigaction(number, info, context);
    if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) return old.sa_handler(number);
  }
  signal(number, SIG_DFL);
  raise(number);
}
static void catch_signals() {
  struct sigaction now;  // Python's faulthandler may have replaced this handler
  if (!sigaction(SIGSEGV, nullptr, &now) && now.sa_sigaction == on_signal) return;
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &old_segv);
  sigaction(SIGFPE, &action, &old_fpe);
  sigaction(SIGBUS, &action, &old_bus);
}

// FAKECUDA_FTZ=1: kernels compiled with -ftz=true, such as CuPy's, flush denormals, including float64's, which a GPU keeps
static const bool FTZ = setting("FAKECUDA_FTZ", 0);
static const unsigned FLUSH = 0x8040;  // flush results and operands
static const bool TRACE = setting("FAKECUDA_TRACE", 0);

static int check_argument(Function* f, int i, const void* p) {
  if (!p || device_bytes(p)) return 0;
  const int d = device_of(p);
  return complain(700, "kernel %s: argument %d must be memory of the current device. Received: %p, which is %s", f->kernel->name, i, p,
                      d < 0 ? "host memory" : d != device ? "another device's memory" : "freed device memory");
}
static int check_arguments(Function* f, void** arguments) {
  for (int i = 0; i < (int)f->params.size(); i++) {
    const int kind = f->params[i].kind;
    if (kind == FK_VALUE || (kind == FK_CARRAY && !((size_t*)arguments[i])[1])) continue;
    if (int e = check_argument(f, i, *(void**)arguments[i])) return e;
  }
  return 0;
}
static int execute(Function* f, const unsigned* size, unsigned shared, void** arguments, bool cooperative) {
  if (int e = check_arguments(f, arguments)) return e;
  counts.launches++;
  if (TRACE) fprintf(stderr, "fakecuda: kernel %s\n", f->kernel->name);
  FkModule* m = f->module;
  *(Index*)m->grid_dim = {size[0], size[1], size[2]};
  *(Index*)m->block_dim = {size[3], size[4], size[5]};
  *m->wait = wait_here;
  *m->total = size[3] * size[4] * size[5];
  job = f->kernel->loop;
  job_arguments = arguments;
  std::vector<char> dynamic(shared + 64, (char)0xff);
  *m->dynamic = (void*)(((size_t)dynamic.data() + 63) / 64 * 64);
  catch_signals();
  const unsigned mode = _mm_getcsr();
  sigjmp_buf here;
  rescue = &here;
  const int number = sigsetjmp(here, 1);
  if (!number) {
    if (FTZ && m->flags & FK_FLUSH) _mm_setcsr(mode | FLUSH);
    run_grid(m, size, cooperative);
  }  // after a signal, the fibers of this launch are abandoned
  _mm_setcsr(mode);
  rescue = nullptr;
  if (!number) return 0;
  return complain(number == SIGFPE ? 719 : 700, "kernel %s was stopped by signal %d at address %p", f->kernel->name, number, fault);
}
int fk::launch(Function* f, std::vector<unsigned> size, unsigned shared, void* stream, void** arguments, bool cooperative) {
  const unsigned limits[] = {0x7fffffff, 65535, 65535, 1024, 1024, 64};
  for (int i = 0; i < 6; i++)
    if (!size[i] || size[i] > limits[i]) return complain(1, "kernel %s: each axis must have 1 to %u blocks or threads. Received: %u", f->kernel->name, limits[i], size[i]);
  if ((unsigned long long)size[3] * size[4] * size[5] > 1024) return complain(1, "kernel %s: a block must have at most 1024 threads. Received: more", f->kernel->name);
  if ((int)shared > f->dynamic_limit) return complain(1, "kernel %s: at most %d bytes of dynamic shared memory. Received: %u", f->kernel->name, f->dynamic_limit, shared);
  if (cooperative) {
    if ((unsigned long long)size[0] * size[1] * size[2] * size[3] * size[4] * size[5] > RESIDENT)
      return complain(720, "kernel %s: a cooperative launch must fit on the device at once. Received: too many threads", f->kernel->name);
    if (f->module->flags & FK_SHARED) return complain(801, "kernel %s: shared memory in a cooperative launch is not emulated", f->kernel->name);
  }
  if (!capturing(stream) && !LAZY)
    return submit(stream, f->kernel->name, [&] { return execute(f, size.data(), shared, arguments, cooperative); });
  auto kept = std::make_shared<std::vector<std::vector<char>>>();
  for (size_t i = 0; i < f->params.size(); i++)
    kept->emplace_back((char*)arguments[i], (char*)arguments[i] + f->params[i].size);
  return submit(stream, f->kernel->name, [=] {
    std::vector<void*> pointers;
    for (auto& bytes : *kept) pointers.push_back(bytes.data());
    return execute(f, size.data(), shared, pointers.data(), cooperative);
  });
}


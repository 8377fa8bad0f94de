// CUDA's driver API.
#include "runtime.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct Module { void* handle; FkModule* module; std::map<std::string, Function*> functions; };
FK_API CUresult cuGetErrorName(CUresult e, const char** s) { *s = cudaGetErrorName((cudaError_t)e); return CUDA_SUCCESS; }
FK_API CUresult cuGetErrorString(CUresult e, const char** s) { *s = cudaGetErrorString((cudaError_t)e); return CUDA_SUCCESS; }
FK_API CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
FK_API CUresult cuDriverGetVersion(int* v) { *v = 13020; return CUDA_SUCCESS; }
FK_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
FK_API CUresult cuCtxGetCurrent(CUcontext* c) { *c = (CUcontext)(size_t)(0x1000 + device); return CUDA_SUCCESS; }
FK_API CUresult cuCtxSetCurrent(CUcontext c) { return (CUresult)cudaSetDevice((int)(size_t)c - 0x1000); }
FK_API CUresult cuCtxGetDevice(CUdevice* d) { *d = device; return CUDA_SUCCESS; }
FK_API CUresult cuStreamGetCtx(CUstream, CUcontext* c) { return cuCtxGetCurrent(c); }

FK_API CUresult cuModuleLoadData(CUmodule* out, const void* image) {
  LOCK;
  const char* bytes = (const char*)image;
  if (memcmp(bytes, "FAKECUBIN", 9)) return (CUresult)fk::complain(200, "a module must come from fakecuda's NVRTC. Received: another module");
  unsigned long long size;
  memcpy(&size, bytes + 16, 8);
  static int count = 0;  // dlopen identifies a library by its path, so each path must be new
  char path[128];
  snprintf(path, sizeof path, P_tmpdir "/fakecuda-module-%d-%d.so", (int)getpid(), count++);
  FILE* file = fopen(path, "wb");
  if (!file || fwrite(bytes + 24, 1, size, file) != size || fclose(file)) return (CUresult)fk::complain(2, "cannot write %s", path);
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  unlink(path);
  if (!handle) return (CUresult)fk::complain(200, "%s", dlerror());
  FkModule* m = (FkModule*)dlsym(handle, "fk_module");
  if (!m || m->abi != FK_ABI) return (CUresult)200;
  Module* module = new Module{handle, m, {}};
  for (FkKernel* k = m->kernels; k->name; k++) {
    Function* f = new Function{m, k, {}};
    for (const FkParam* p = k->params; p->kind >= 0; p++) f->params.push_back(*p);
    module->functions[k->name] = f;
  }
  *out = (CUmodule)module;
  return CUDA_SUCCESS;
}
FK_API CUresult cuModuleLoad(CUmodule* out, const char* path) {
  FILE* f = fopen(path, "rb");
  if (!f) return (CUresult)301;
  std::string text;
  char buffer[65536];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, f));) text.append(buffer, n);
  fclose(f);
  return cuModuleLoadData(out, text.data());
}
FK_API CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }  // keeps the module, because a graph may still use its kernels
FK_API CUresult cuModuleGetFunction(CUfunction* out, CUmodule module, const char* name) {
  LOCK;
  auto& functions = ((Module*)module)->functions;
  auto it = functions.find(name);
  if (it == functions.end()) return (CUresult)500;
  *out = (CUfunction)it->second;
  return CUDA_SUCCESS;
}
FK_API CUresult cuModuleGetGlobal_v2(CUdeviceptr*, size_t*, CUmodule, const char*) { return (CUresult)801; }
FK_API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, CUstream s, void** arguments, void**) {
  LOCK;
  return (CUresult)launch((Function*)f, {gx, gy, gz, bx, by, bz}, shared, s, arguments, false);
}
FK_API CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, CUstream s, void** arguments) {
  LOCK;
  return (CUresult)launch((Function*)f, {gx, gy, gz, bx, by, bz}, shared, s, arguments, true);
}
FK_API CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction f) {
  *value = attribute == 0 ? 1024 : attribute == 8 ? ((Function*)f)->dynamic_limit : attribute == 4 ? 32 : attribute == 5 || attribute == 6 ? 90 : 0;
  return CUDA_SUCCESS;
}
FK_API CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute attribute, int value) {
  if (attribute == 8) {
    if (value > 227 << 10) return (CUresult)1;
    ((Function*)f)->dynamic_limit = value;
  }
  return CUDA_SUCCESS;
}
FK_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, CUfunction, int block, size_t) { *n = 2048 / (block > 1 ? block : 1); return CUDA_SUCCESS; }
FK_API CUresult cuOccupancyMaxPotentialBlockSize(int* grid, int* block, CUfunction, CUoccupancyB2DSize, size_t, int limit) {
  *grid = 4;
  *block = limit && limit < 1024 ? limit : 1024;
  return CUDA_SUCCESS;
}

// The interface between a compiled kernel module and the loader.
#pragma once
enum { FK_ABI = 2 };
enum { FK_WARP = 1, FK_BLOCK = 2, FK_GRID = 3 };      // the kind of barrier at which a thread waits
enum { FK_SHARED = 1, FK_FLUSH = 2 };                 // the kernels use shared memory; they were compiled with -ftz=true
enum { FK_VALUE = 0, FK_POINTER = 1, FK_CARRAY = 2 };  // kinds of parameters; CuPy's array starts with an address and a size
struct FkParam { unsigned size; int kind; };
struct FkKernel { const char* name; void (*loop)(void** params); const FkParam* params; };
struct FkModule {
  int abi, flags;
  void *block_index, *block_dim, *grid_dim;  // uint3, dim3, dim3
  unsigned *cursor, *total;
  void** dynamic;
  void (**wait)(int kind);
  FkKernel* kernels;
};

// The emulated part of cooperative groups: the block, and the whole grid of a cooperative launch.
#pragma once
namespace cooperative_groups {
struct thread_block {
  static void sync() { fk_barrier(FK_BLOCK); }
  static unsigned thread_rank() { return fk_linear(); }
  static unsigned num_threads() { return blockDim.x * blockDim.y * blockDim.z; }
  static unsigned size() { return num_threads(); }
  static dim3 group_index() { return dim3(blockIdx.x, blockIdx.y, blockIdx.z); }
  static dim3 thread_index() { return dim3(threadIdx.x, threadIdx.y, threadIdx.z); }
};
struct grid_group {
  static void sync() { fk_barrier(FK_GRID); }
  static unsigned long long block_rank() { return blockIdx.x + (unsigned long long)gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z); }
  static unsigned long long num_blocks() { return (unsigned long long)gridDim.x * gridDim.y * gridDim.z; }
  static unsigned long long thread_rank() { return block_rank() * thread_block::num_threads() + fk_linear(); }
  static unsigned long long num_threads() { return num_blocks() * thread_block::num_threads(); }
  static unsigned long long size() { return num_threads(); }
  static bool is_valid() { return true; }
};
static inline thread_block this_thread_block() { return {}; }
static inline grid_group this_grid() { return {}; }
template <class Group> static inline void sync(const Group& group) { group.sync(); }
}  // namespace cooperative_groups
